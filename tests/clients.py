"""Other people's clients, asked from their own environment (`.venv-clients`): prints their answers as JSON.

python clients.py URL MODEL < rows.json
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


if __name__ == "__main__":
    url, model = sys.argv[1:]
    rows = json.load(sys.stdin)
    json.dump({"kserve": kserve_answers(url, model, rows), "triton": triton_answers(url, model, rows)}, sys.stdout)
