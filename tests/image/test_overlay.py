"""An image gets into an overlay, with real kustomize reading the result, and nothing else in the file changes."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, run
from defects.image import overlay
from defects.settings import BadSetting
from manifests import container, kustomize

DIGEST = f"sha256:{'a' * 64}"
IMAGE = f"registry.example.com:5000/warehouse/defect-classifier@{DIGEST}"


@pytest.fixture
def kserve(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "kserve", tmp_path / "kserve")
    return tmp_path / "kserve"


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


@pytest.mark.parametrize("name", ["local", "staging", "production"])
def test_every_overlay_takes_an_image_and_keeps_everything_else(kserve: Path, name: str) -> None:
    folder = kserve / "overlays" / name
    file = folder / "kustomization.yaml"
    before = file.read_text()
    image = overlay.Reference.parse(IMAGE)
    assert overlay.set_image(folder, "defect-classifier", image) == f"{file}: defect-classifier is now {IMAGE}"
    rendered = list(yaml.safe_load_all(kustomize(folder).stdout))
    assert container(rendered)["image"] == IMAGE
    after = file.read_text()
    assert comments(after) == comments(before)
    assert {**yaml.safe_load(after), "images": None} == {**yaml.safe_load(before), "images": None}
    assert overlay.set_image(folder, "defect-classifier", image) == f"{file}: defect-classifier is {IMAGE} already"
    assert file.read_text() == after


@pytest.mark.parametrize("name", ["namespaced", "cluster"])
def test_a_runtime_takes_an_image_by_the_same_name(kserve: Path, name: str) -> None:
    folder = kserve / "runtime" / name
    overlay.set_image(folder, "defect-classifier", overlay.Reference.parse(IMAGE))
    (runtime,) = yaml.safe_load_all(kustomize(folder).stdout)
    assert runtime["spec"]["containers"][0]["image"] == IMAGE


def test_the_load_tests_image_is_another(kserve: Path) -> None:
    folder = kserve / "overlays" / "staging"
    mine = f"registry.example.com/load@{DIGEST}"
    overlay.set_image(folder, "defect-classifier", overlay.Reference.parse(IMAGE))
    command = [sys.executable, "-m", "defects.image", "set", "--overlay", str(folder)]
    subprocess.run([*command, "--name", "defect-classifier-load", mine], cwd=ROOT, check=True)
    fields = yaml.safe_load((folder / "kustomization.yaml").read_text())
    fields["components"].append("../../components/load-test")
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(fields))
    rendered = list(yaml.safe_load_all(kustomize(folder).stdout))
    (job,) = [d for d in rendered if d["kind"] == "Job"]
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == mine
    assert container(rendered)["image"] == IMAGE


HEAD = "kind: Kustomization # a comment\n"
OTHER = "  - name: another # of somebody else\n    newTag: v2\n"
TAKEN = {
    "no images": HEAD,
    "no end of the last line": HEAD + "namespace: x",
    "only another": f"{HEAD}images:\n{OTHER}# the end\nnamespace: x\n",
    "another in flow style": f"{HEAD}images:\n  - {{name: another, newTag: v2}}\nnamespace: x\n",
    "no indentation": f"{HEAD}images:\n- name: another\n  newTag: v2\nnamespace: x\n",
    "wide dash": f"{HEAD}images:\n  -   name: defect-classifier\n      newTag: v1 # old\n",
    "only the name": f"{HEAD}images:\n{OTHER}  - name: defect-classifier # ours\nnamespace: x\n",
    "both versions": f"{HEAD}images:\n  - digest: {DIGEST} # d\n    newTag: v1 # t\n    name: defect-classifier\n",
    "quoted": f"{HEAD}images:\n  - name: 'defect-classifier'\n    newName: \"x/y\" # q\n    newTag: '1'\n{OTHER}",
    "windows": (HEAD + "images:\n  - name: defect-classifier\n    newTag: v1 # old\n" + OTHER).replace("\n", "\r\n"),
    "in the middle": "---\nimages: # which\n  - name: defect-classifier\n    newTag: v1\n\n# next\nkind: Component\n",
    "a number": "images:\n  - name: defect-classifier\n    newTag: 1.0 # a number\n",
    "a block": "images:\n  - name: defect-classifier\n    newTag: |\n      a\n",
}


@pytest.mark.parametrize("image", [IMAGE, "registry.example.com/defects:1.0", "registry.example.com/defects:v1"])
@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN)
def test_however_an_overlay_is_written_only_this_image_changes(text: str, image: str) -> None:
    reference = overlay.Reference.parse(image)
    new = overlay.edited(text, "defect-classifier", reference)
    assert overlay.edited(new, "defect-classifier", reference) == new
    before, after = yaml.safe_load(text), yaml.safe_load(new)
    (ours,) = [entry for entry in after["images"] if entry["name"] == "defect-classifier"]
    assert ours == {"name": "defect-classifier", "newName": reference.repository, reference.field: reference.version}
    others = [entry for entry in before.get("images", []) if entry["name"] != "defect-classifier"]
    assert [entry for entry in after["images"] if entry is not ours] == others
    assert {**after, "images": None} == {**before, "images": None}
    assert sorted(comments(new)) == sorted(comments(text))
    assert ("\r\n" in new) == ("\r\n" in text)
    assert new.count("\r\n") in (0, new.count("\n"))


REFUSED = {
    "flow style": "images: [{name: defect-classifier, newTag: v1}]\n",
    "our entry in flow style": "images:\n  - {name: defect-classifier, newTag: v1}\n",
    "a field that is not known": "images:\n  - name: defect-classifier\n    tagSuffix: x\n",
    "twice the image": "images:\n  - name: defect-classifier\n  - name: defect-classifier\n",
    "twice images": "images:\n  - name: defect-classifier\nimages:\n  - name: defect-classifier\n",
    "twice a field": "images:\n  - name: defect-classifier\n    newTag: a\n    newTag: b\n",
    "an anchor that others use": "x: &v v1\nimages:\n  - name: defect-classifier\n    newTag: *v\n",
    "no list": "images: {}\n",
    "empty": "",
    "a list": "- images\n",
    "two documents": "kind: A\n---\nkind: B\n",
    "no YAML": "images: [\n",
    "no text": "images:\n  - name: defect-classifier\n    newTag: [a]\n",
    "in braces": "{images: [], kind: Kustomization}\n",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_is_not_understood_is_refused_and_stays_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kustomization.yaml"
    file.write_text(text)
    with pytest.raises(BadSetting, match="can't be edited"):
        overlay.set_image(tmp_path, "defect-classifier", overlay.Reference.parse(IMAGE))
    assert file.read_text() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kustomization.yaml"]


@pytest.mark.parametrize(
    "image", ["defects", "registry.example.com/defects", f"registry.example.com/defects@{DIGEST[:-1]}", "x/Y:1", ""]
)
def test_an_image_without_a_version_or_a_registry_is_refused(image: str) -> None:
    with pytest.raises(BadSetting, match=r"^IMAGE: is .*; expected registry/repository@sha256:"):
        overlay.Reference.parse(image)


def test_a_refusal_is_one_line_and_exit_code_78(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(REFUSED["flow style"])
    done = run(tmp_path, "python", "-m", "defects.image", "set", "--overlay", tmp_path, IMAGE)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (78, "")
    assert line.startswith(f"defects: {tmp_path}/kustomization.yaml: can't be edited: images: is no list")


def test_a_folder_without_a_kustomization_or_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    reference = overlay.Reference.parse(IMAGE)
    with pytest.raises(BadSetting, match=r"^--overlay: .* has no kustomization.yaml; expected"):
        overlay.set_image(tmp_path, "defect-classifier", reference)
    (tmp_path / "kustomization.yaml").write_text(HEAD)
    with pytest.raises(BadSetting, match=r"^--name: is"):
        overlay.set_image(tmp_path, 'a"\nb', reference)
    (tmp_path / "Kustomization").write_text(HEAD)
    with pytest.raises(BadSetting, match="has more than one kustomization"):
        overlay.set_image(tmp_path, "defect-classifier", reference)


def test_the_file_is_replaced_at_once_with_its_permissions_and_a_link_stays_one(tmp_path: Path) -> None:
    real = tmp_path / "real.yaml"
    real.write_text(HEAD)
    real.chmod(0o640)
    (tmp_path / "overlay").mkdir()
    link = tmp_path / "overlay" / "kustomization.yaml"
    link.symlink_to(real)
    with real.open() as reader:  # who reads meanwhile has the whole file as it was
        overlay.set_image(link.parent, "defect-classifier", overlay.Reference.parse(IMAGE))
        assert reader.read() == HEAD
    assert link.is_symlink()
    assert IMAGE.partition("@")[0] in real.read_text()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
