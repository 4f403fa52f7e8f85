"""Other people's clients, asked from their own environment (`.venv-clients`): prints their answers as JSON.

python clients.py URL MODEL < rows.json

Rows that are objects are sent by column, as the model's metadata says: texts as NumPy's arrays of objects.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np


def kserve_answers(url: str, model: str, rows: Any) -> dict[str, Any]:
    from kserve.protocol.infer_type import RequestedOutput

    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

    async def ask() -> dict[str, Any]:
        v2 = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
        v1 = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
        answers: dict[str, Any] = {
            "live": await v2.is_server_live(url),
            "ready": await v2.is_server_ready(url),
            "model ready": await v2.is_model_ready(url, model),
            "v1 model ready": await v1.is_model_ready(url, model),
        }
        one = await v1.infer(url, {"instances": rows}, model_name=model)
        answers["v1"] = [list(p["probabilities"].values()) for p in one["predictions"]]
        for binary in (False, True):
            tensor = InferInput("input-0", list(np.shape(rows)), "FP32")
            tensor.set_data_from_numpy(np.array(rows, np.float32), binary_data=binary)
            output = RequestedOutput("probabilities", {"binary_data": binary})
            request = InferRequest(model, [tensor], request_id="r1", request_outputs=[output])
            answer = await v2.infer(url, request, model_name=model)
            assert answer.id == "r1"
            answers["v2 binary" if binary else "v2 json"] = answer.outputs[0].as_numpy().reshape(len(rows), -1).tolist()
        return answers

    return asyncio.run(ask())


def triton_answers(url: str, model: str, rows: Any) -> dict[str, Any]:
    import tritonclient.http as triton

    client = triton.InferenceServerClient(url.removeprefix("http://"))
    metadata = client.get_model_metadata(model)
    (described,) = metadata["inputs"]
    version = metadata["versions"][0]
    answers: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready(model) and client.is_model_ready(model, version),
        "server": client.get_server_metadata()["extensions"],
        "shape": described["shape"],
    }
    ways = {"binary": (True, None), "json": (False, None), "gzip": (True, "gzip")}
    for way, (binary, compression) in ways.items():
        tensor = triton.InferInput(described["name"], list(np.shape(rows)), described["datatype"])
        tensor.set_data_from_numpy(np.array(rows, np.float32), binary_data=binary)
        outputs = [triton.InferRequestedOutput(o["name"], binary_data=binary) for o in metadata["outputs"]]
        answer = client.infer(
            model, [tensor], version, outputs,
            request_compression_algorithm=compression, response_compression_algorithm=compression,
        )  # fmt: skip
        answers[way] = answer.as_numpy("probabilities").tolist()
        labels = [label.decode() if isinstance(label, bytes) else label for label in answer.as_numpy("label")]
        answers[f"{way} labels"] = labels
        answers[f"{way} indices"] = answer.as_numpy("class_index").tolist()
    try:
        client.get_model_metadata("nobody")
    except triton.InferenceServerException as error:
        answers["unknown"] = error.message()
    return answers


def columns(metadata: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, tuple[str, Any]]:
    """Return the datatype and the values of each column, made of nothing but rows and the model's metadata."""
    (described,) = metadata["inputs"]
    found: dict[str, tuple[str, Any]] = {}
    for column in described["parameters"]["columns"]:
        values = [row[column["name"]] for row in rows]
        if column["kind"] == "category":
            found[column["name"]] = (column["datatype"], np.array([value or "" for value in values], np.object_))
        else:
            found[column["name"]] = (described["datatype"], np.array(values, np.float32))
    return found


def kserve_columns(url: str, model: str, rows: Any, metadata: dict[str, Any]) -> dict[str, Any]:
    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

    async def ask() -> dict[str, Any]:
        client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
        answers: dict[str, Any] = {}
        for binary in (False, True):
            tensors = []
            for name, (datatype, values) in columns(metadata, rows).items():
                tensors.append(InferInput(name, [len(rows), 1], datatype))
                tensors[-1].set_data_from_numpy(values.reshape(-1, 1), binary_data=binary)
            answer = await client.infer(url, InferRequest(model, tensors), model_name=model)
            answers["binary" if binary else "json"] = [str(label) for label in answer.outputs[0].as_numpy().tolist()]
        return answers

    return asyncio.run(ask())


def triton_columns(url: str, model: str, rows: Any) -> dict[str, Any]:
    import tritonclient.http as triton

    client = triton.InferenceServerClient(url.removeprefix("http://"))
    metadata = client.get_model_metadata(model)
    answers: dict[str, Any] = {"metadata": metadata}
    for way, binary in {"binary": [True], "json": [False], "mixed": [True, False]}.items():
        tensors = []
        for number, (name, (datatype, values)) in enumerate(columns(metadata, rows).items()):
            tensors.append(triton.InferInput(name, [len(rows)], datatype))
            tensors[-1].set_data_from_numpy(values, binary_data=binary[number % len(binary)])
        answer = client.infer(model, tensors, outputs=[triton.InferRequestedOutput("label", binary_data=False)])
        answers[way] = answer.as_numpy("label").tolist()
    return answers


if __name__ == "__main__":
    url, model = sys.argv[1:]
    rows = json.load(sys.stdin)
    if isinstance(rows[0], dict):
        triton = triton_columns(url, model, rows)
        kserve = kserve_columns(url, model, rows, triton.pop("metadata"))
        json.dump({"kserve": kserve, "triton": triton}, sys.stdout)
        sys.exit()
    json.dump({"kserve": kserve_answers(url, model, rows), "triton": triton_answers(url, model, rows)}, sys.stdout)
