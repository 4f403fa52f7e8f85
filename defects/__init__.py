"""The library behind `service.py` and `train.py`; importable without BentoML."""
