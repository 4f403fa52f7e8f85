"""Make a model of a table, or of a fitted one, with the proof that it is served as it answers here."""

import os

# OpenMP's threads wait for one another at full speed, unless told otherwise before it is loaded. On a busy machine,
# fitting boosted trees took up to sixty times as long with that, and five times as much CPU.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
