"""What `bentoml` builds and serves: the BentoML service around one replica."""

from __future__ import annotations

from defects.replica import Replica

REPLICA = Replica.from_environment()  # what can be wrong ends the process before BentoML's SDK is loaded

from defects.bentoml_service import classifier  # noqa: E402 - see above

DefectClassifier = classifier(REPLICA)
