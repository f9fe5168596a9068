"""What a pipeline hands over: objects of manifests, contents of configuration, and changes of a template on the command line."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from deployguard.errors import UserError
from deployguard.files.changes import image_change, set_change, with_images, with_settings
from deployguard.files.manifest import candidate_of, load_manifest, others, others_words
from deployguard.files.sources import Source, config_sources, sources_of

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: shop/web:1.8
          env: [{name: LOG_LEVEL, value: info}]
      volumes:
        - {name: keys, secret: {secretName: web-keys, defaultMode: 0400}}
"""
SETTINGS = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web-settings, namespace: shop}\ndata: {a.json: '{}', level: debug}\n"
KEYS = "apiVersion: v1\nkind: Secret\nmetadata: {name: web-keys}\ndata: {a: c2VjcmV0LW9uZQ==}\nstringData: {b: hunter2}\n"
HELM = f"# Source: web/templates/all.yaml\n---\n\n---\n# only a comment\n---\n{WEB}---\n{SETTINGS}---\n{KEYS}"
SECRETS = ("hunter2", "secret-one", "c2VjcmV0LW9uZQ")


def write(folder: Path, text: str, name: str = "all.yaml") -> Path:
    """A file with this text."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refusal(path: Path, *refs: tuple[str, str]) -> str:
    """What is said when the workload and these sources are read from a file that is not right: message and hint, without any value."""

    def read() -> None:
        manifest = load_manifest(path)
        candidate_of(manifest, "Deployment", "web", "shop")
        sources_of(manifest, refs, "shop")

    with pytest.raises(UserError) as caught:
        read()
    said = f"{caught.value.message}\n{caught.value.hint}"
    assert caught.value.exit_code == 2
    assert not any(secret in said for secret in SECRETS), said
    return said


def test_rendered_output_is_read_object_by_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty documents and comments are left out; standard input, a directory and a `kind: List` give the same objects."""
    (tmp_path / "deep").mkdir()
    for n, text in enumerate((WEB, SETTINGS, KEYS)):
        write(tmp_path, text, f"deep/{n}.yml")
    write(tmp_path, "not read", "notes.txt")
    parts = [o.data for o in load_manifest(tmp_path).objects]
    listed = write(tmp_path, json.dumps({"apiVersion": "v1", "kind": "List", "items": parts}), "list.json")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(HELM.encode())))
    for manifest in (load_manifest("-"), load_manifest(tmp_path / "deep"), load_manifest(listed)):
        assert [o.title for o in manifest.objects] == ["Deployment/web", "ConfigMap/web-settings", "Secret/web-keys"]
        candidate = candidate_of(manifest, "Deployment", "web", "shop")
        assert candidate["spec"]["template"]["spec"]["volumes"][0]["secret"]["defaultMode"] == 0o400
        rest = others(manifest, [("Deployment", "web"), ("ConfigMap", "web-settings")], "shop")
        assert others_words(rest) == ["Secret: web-keys"]


def test_contents_are_what_the_server_would_keep(tmp_path: Path) -> None:
    """`stringData` is merged into `data`; what is not guarded is not read; printing a content shows no value."""
    refs = [("ConfigMap", "web-settings"), ("Secret", "web-keys"), ("ConfigMap", "absent")]
    found = sources_of(load_manifest(write(tmp_path, HELM)), refs, "shop")
    assert found["ConfigMap", "web-settings"].body() == {"data": {"a.json": "{}", "level": "debug"}}
    keys = found["Secret", "web-keys"]
    assert {k: base64.b64decode(v) for k, v in keys.body()["data"].items()} == {"a": b"secret-one", "b": b"hunter2"}
    assert len(found) == 2
    assert not any(secret in repr(found) for secret in SECRETS)


CANDIDATES = {
    "absent": (SETTINGS, "has no Deployment/web for the namespace `shop`", "ConfigMap/web-settings"),
    "another name": (WEB.replace("name: web,", "name: wep,"), "has no Deployment/web", "did you mean Deployment/wep?"),
    "another namespace": (WEB.replace("{name: web,", "{name: web, namespace: prod,"), "line 1 is for `prod`", "--namespace prod"),
    "twice": (f"{WEB}---\n{WEB}", "writes Deployment/web 2 times", "keep one of them"),
    "old API": (WEB.replace("apps/v1", "extensions/v1beta1"), "line 1: `apiVersion`", "apps/v1"),
    "no template": (WEB.replace("  template:", "  tmplate:"), "`spec.template`: missing", ""),
    "no image": (WEB.replace("image: shop/web:1.8", "image: 1.8"), "line 11: `spec.template.spec.containers[0].image`: no text", ""),
    "a key twice": (WEB.replace("          env:", "          image: x\n          env:"), "line 12", "written twice, first on line 11"),
    "no object": ("just text\n", "text stands where an object is expected", "begin with `apiVersion:`"),
    "no kind": ("apiVersion: v1\nmetadata: {name: x}\n", "line 1: `kind`: missing", ""),
    "a template of Helm": ("kind: Deployment\nmetadata:\n  name: {{ .Values.name }}-x: y\n", "line 3", "this is a template of Helm"),
    "nothing": ("# only a comment\n---\n", "no object stands in it", "pipe it in with `-`"),
}


@pytest.mark.parametrize("case", CANDIDATES)
def test_a_manifest_without_one_usable_workload_is_refused(case: str, tmp_path: Path) -> None:
    """The refusal names what is there, and the line of what is wrong."""
    text, found, right = CANDIDATES[case]
    said = refusal(write(tmp_path, text))
    assert found in said
    assert right in said


CONTENTS = {
    "a number": ("ConfigMap/web-settings", SETTINGS.replace("debug", "7"), "`data.level`", "put it in quotes"),
    "no map": (
        "ConfigMap/web-settings",
        SETTINGS.replace("data: {a.json: '{}', level: debug}", "data: [1]"),
        "`data`: no map",
        "key: value",
    ),
    "a bad key": ("ConfigMap/web-settings", SETTINGS.replace("level:", "le/vel:"), "a character that keys cannot have", "letters, digits"),
    "a parent's key": ("ConfigMap/web-settings", SETTINGS.replace("level:", "..level:"), "begins with `..`", ""),
    "a key in both": ("ConfigMap/web-settings", SETTINGS + "binaryData: {level: aGk=}\n", "in `data` and in `binaryData`", "keep one"),
    "too large": ("ConfigMap/web-settings", SETTINGS.replace("debug", "x" * 1_048_576), "1,048,576 are the most", ""),
    "not base64": ("Secret/web-keys", KEYS.replace("c2VjcmV0LW9uZQ==", "hunter2!"), "not base64", "stringData"),
    "a secret number": ("Secret/web-keys", KEYS.replace("hunter2", "12345"), "`stringData.b`: a number", "put it in quotes"),
    "a secret as an alias": ("Secret/web-keys", KEYS.replace("hunter2", "*hunter2"), "line 5", "(not shown)"),
    "a secret with a tag": ("Secret/web-keys", KEYS.replace("hunter2", "!!int hunter2"), "line 5", "(not shown)"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_content_that_the_server_would_refuse_is_refused_first(case: str, tmp_path: Path) -> None:
    """File, line and field are named, and never a value of a Secret."""
    title, text, found, right = CONTENTS[case]
    kind, _, name = title.partition("/")
    said = refusal(write(tmp_path, f"{text}---\n{WEB}"), (kind, name))
    assert found in said
    assert right in said


def test_what_must_be_rendered_first_is_told_so(tmp_path: Path) -> None:
    """A kustomization and a chart are no manifests; the command that renders them is shown."""
    write(tmp_path, "resources: [web.yaml]\n", "k/kustomization.yaml")
    write(tmp_path, "name: web\n", "c/Chart.yaml")
    assert "kubectl kustomize" in refusal(tmp_path / "k")
    assert "helm template" in refusal(tmp_path / "c")


def content(tmp_path: Path, what: str, path: str) -> Source:
    """The content that one `--config` option gives."""
    ((_, found),) = config_sources([f"{what}={tmp_path / path}"]).items()
    return found


def test_configuration_is_read_as_kubectl_reads_it(tmp_path: Path) -> None:
    """A directory gives a key per file, one file its own name, an .env file a key per line, a manifest what it writes."""
    write(tmp_path, "{}", "new/app.json")
    (tmp_path / "new/blob").write_bytes(b"\xff\x00")
    write(tmp_path, "x", "new/sub/deeper")
    folder = content(tmp_path, "ConfigMap/web-settings", "new")
    assert folder.body() == {"data": {"app.json": "{}"}, "binaryData": {"blob": "/wA="}}
    assert folder.skipped == ("sub",)
    assert content(tmp_path, "Secret/web-tls", "new").body()["data"].keys() == {"app.json", "blob"}
    assert content(tmp_path, "configmap/web-settings", "new/app.json").text == {"app.json": "{}"}
    write(tmp_path, "# said\n\n  A=1\r\nB='x y'\nC=\n", "some.env")
    assert content(tmp_path, "ConfigMap/web-settings", "some.env").text == {"A": "1", "B": "'x y'", "C": ""}
    write(tmp_path, SETTINGS, "map.yaml")
    assert content(tmp_path, "ConfigMap/web-settings", "map.yaml").text["level"] == "debug"
    write(tmp_path, "level: debug\n", "plain.yaml")
    assert content(tmp_path, "ConfigMap/web-settings", "plain.yaml").text == {"plain.yaml": "level: debug\n"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["settings.json"], "does not say what it is the content of"),
        (["Deployment/web=x"], "is no kind of configuration"),
        (["ConfigMap/Web=x"], "is no name that an object can have"),
        (["ConfigMap/a=absent"], "no such file"),
        (["ConfigMap/other=map.yaml"], "does not write ConfigMap/other: it has ConfigMap/web-settings"),
        (["ConfigMap/a=empty"], "no regular file lies in it"),
        (["ConfigMap/a=bad.env"], "line 2: a line without `=`"),
        (["ConfigMap/a=good.env", "ConfigMap/a=map.yaml"], "gives ConfigMap/a twice"),
        (["Secret/a=a key"], "has a character that keys cannot have"),
        (["Secret/a=large"], "a file may have at most 1,048,576 bytes"),
    ],
)
def test_a_wrong_config_option_is_refused(options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with the option or with what lies there is said, and no value."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, SETTINGS, "map.yaml")
    write(tmp_path, "A=1\nhunter2\n", "bad.env")
    write(tmp_path, "A=1\n", "good.env")
    write(tmp_path, "hunter2", "a key")
    write(tmp_path, "x" * 1_048_577, "large")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        config_sources(options)
    assert said in caught.value.message
    assert "hunter2" not in caught.value.message + caught.value.hint


def template(*names: str) -> dict[str, Any]:
    """A pod template with these containers."""
    containers = [{"name": n, "image": f"shop/{n}:1", "env": [{"name": "LOG_LEVEL", "value": "info"}]} for n in names]
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}}


def test_images_and_settings_change_a_copy() -> None:
    """The template itself stays; variables, resources, full paths and odd keys land where they belong."""
    before = template("web", "proxy")
    options = [
        "web/env.LOG_LEVEL=debug",
        "web/env.A.B=x=y",
        "web/resources.limits.memory=1Gi",
        "proxy/resources.requests.cpu=1",
        "spec.template.spec.terminationGracePeriodSeconds=60",
        'spec.template.metadata.annotations["a.example/b=c"]=7',
        "spec.template.spec.containers[proxy].env[LOG_LEVEL].value=1",
        "spec.template.spec.containers[0].args=[--verbose]",
    ]
    after = with_settings(with_images(before, [image_change("web=h.example:5000/shop/web:1.9")]), [set_change(o) for o in options])
    web, proxy = after["spec"]["containers"]
    assert before == template("web", "proxy")
    assert web["image"] == "h.example:5000/shop/web:1.9"
    assert web["env"] == [{"name": "LOG_LEVEL", "value": "debug"}, {"name": "A.B", "value": "x=y"}]
    assert (web["resources"], proxy["resources"]) == ({"limits": {"memory": "1Gi"}}, {"requests": {"cpu": "1"}})
    assert (web["args"], proxy["env"][0]["value"]) == (["--verbose"], "1")
    assert after["spec"]["terminationGracePeriodSeconds"] == 60
    assert after["metadata"]["annotations"] == {"a.example/b=c": "7"}
    assert with_images(template("web"), [image_change("shop/web@sha256:" + "a" * 64)])["spec"]["containers"][0]["image"].startswith(
        "shop/web@"
    )


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--image shop/web:1.9", "names no container, and the pod has 2: `web`, `proxy`"),
        ("--image api=shop/web:1.9", "no container `api`"),
        ("--image web=Shop web", "is no name of an image"),
        ("--image =shop/web", "names no container"),
        ("--set env.A=1", "names no container, and the pod has 2"),
        ("--set web/enf.A=hunter2", "is no field of a container"),
        ("--set web/env.A", "gives no value"),
        ("--set spec.replicas=3", "is not in the pod template"),
        ("--set spec.template.spec.containers[api].image=x", "no item `api`"),
        ("--set spec.template.metadata.labels.app.x=1", "nothing can stand below `app`"),
        ("--set spec..template=1", "cannot be read from `..template` on"),
    ],
)
def test_a_change_that_leads_nowhere_is_refused(option: str, said: str) -> None:
    """The option is named with what is there; its value is not repeated."""
    kind, _, text = option.partition(" ")
    change = {
        "--image": lambda: with_images(template("web", "proxy"), [image_change(text)]),
        "--set": lambda: with_settings(template("web", "proxy"), [set_change(text)]),
    }
    with pytest.raises(UserError) as caught:
        change[kind]()
    assert said in caught.value.message
    assert caught.value.hint
    assert "hunter2" not in caught.value.message + caught.value.hint
