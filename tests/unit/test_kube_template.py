"""Pod templates: what makes two of them the same version, where they read configuration, and what a canary's looks like."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from deployguard.errors import UserError
from deployguard.model.version import NOTHING
from deployguard.targets.kubernetes.references import ConfigRef, pinned, references, unguardable
from deployguard.targets.kubernetes.template import canary, config_of, digest, images, merged, plain, promoted, with_image

SETTINGS = ConfigRef("ConfigMap", "settings")
KEYS = ConfigRef("Secret", "keys")

TEMPLATE: dict[str, Any] = {
    "metadata": {"creationTimestamp": None, "labels": {"app": "web"}, "annotations": {"team": "shop"}},
    "spec": {
        "restartPolicy": "Always",
        "securityContext": {},
        "imagePullSecrets": [{"name": "registry"}],
        "volumes": [
            {"name": "conf", "configMap": {"name": "settings", "defaultMode": 420}},
            {"name": "tls", "secret": {"secretName": "keys", "items": [{"key": "crt", "path": "crt"}]}},
            {
                "name": "both",
                "projected": {
                    "sources": [
                        {"configMap": {"name": "settings", "optional": True}},
                        {"secret": {"name": "keys"}},
                        {"downwardAPI": {"items": []}},
                    ]
                },
            },
            {"name": "scratch", "emptyDir": {}},
            {"name": "disk", "csi": {"driver": "disks.example.com", "nodePublishSecretRef": {"name": "storage"}}},
        ],
        "initContainers": [
            {
                "name": "migrate",
                "image": "shop:1",
                "env": [{"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}}],
            },
            {"name": "proxy", "image": "proxy:3", "restartPolicy": "Always", "envFrom": [{"secretRef": {"name": "keys"}}]},
        ],
        "containers": [
            {
                "name": "app",
                "image": "shop:1",
                "resources": {},
                "volumeMounts": [{"name": "conf", "mountPath": "/etc/shop"}],
                "envFrom": [{"configMapRef": {"name": "settings", "optional": True}}, {"prefix": "X_", "configMapRef": {"name": "other"}}],
                "env": [
                    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token", "optional": True}}},
                    {"name": "HOME", "value": "/srv"},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                ],
            }
        ],
    },
}


def test_marks_of_ours_and_of_controllers_do_not_make_a_version() -> None:
    """A template, the same in a ReplicaSet or a ControllerRevision, and the same with our marks all have one digest."""
    marked = copy.deepcopy(TEMPLATE)
    marked["metadata"]["labels"] |= {"pod-template-hash": "abc", "controller-revision-hash": "web-1", "deployguard.dev/canary": "web"}
    marked["metadata"]["annotations"] |= {"deployguard.dev/config": "sha256:1"}
    del marked["spec"]["securityContext"], marked["spec"]["containers"][0]["resources"]
    before = copy.deepcopy(marked)
    assert digest(marked) == digest(TEMPLATE)
    assert marked == before
    assert plain(marked)["metadata"] == {"labels": {"app": "web"}, "annotations": {"team": "shop"}}
    assert plain(TEMPLATE)["spec"]["volumes"][3] == {"name": "scratch", "emptyDir": {}}
    assert "metadata" not in plain({"metadata": {"creationTimestamp": None, "labels": {"deployguard.dev/canary": "web"}}, "spec": {}})


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["metadata"]["labels"].update(app="shop"),
        lambda t: t["metadata"]["annotations"].update({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}),
        lambda t: t["spec"]["containers"][0].update(image="shop:2"),
        lambda t: t["spec"]["containers"][0]["env"].reverse(),
        lambda t: t["spec"]["volumes"][3].pop("emptyDir"),
    ],
)
def test_what_people_change_makes_another_version(change: Any) -> None:
    """A label, an annotation, an image, the order of variables or a volume of the user's is part of the version."""
    other = copy.deepcopy(TEMPLATE)
    change(other)
    assert digest(other) != digest(TEMPLATE)


def test_every_place_that_reads_configuration_is_found() -> None:
    """Volumes, projected sources, envFrom and env, in containers, init containers and sidecars, with their keys."""
    found = [(r.kind, r.name, r.where, r.optional, r.keys, r.pinnable) for r in references(TEMPLATE)]
    assert found == [
        ("ConfigMap", "settings", "volume conf", False, (), True),
        ("Secret", "keys", "volume tls", False, ("crt",), True),
        ("ConfigMap", "settings", "projected volume both", True, (), True),
        ("Secret", "keys", "projected volume both", False, (), True),
        ("Secret", "storage", "credentials of volume disk", False, (), False),
        ("ConfigMap", "settings", "env MODE of init container migrate", False, ("mode",), True),
        ("Secret", "keys", "envFrom of sidecar proxy", False, (), True),
        ("ConfigMap", "settings", "envFrom of container app", True, (), True),
        ("ConfigMap", "other", "envFrom of container app", False, (), True),
        ("Secret", "keys", "env TOKEN of container app", True, ("token",), True),
        ("Secret", "registry", "imagePullSecrets", True, (), False),
    ]


def test_a_canary_names_the_copies_and_nothing_else_changes() -> None:
    """Each reference to what is guarded names its copy; the rest, the labels of the user included, is as it was; the original is left."""
    before = copy.deepcopy(TEMPLATE)
    mine = canary(
        TEMPLATE, pins={SETTINGS: "settings-dg-1", KEYS: "keys-dg-2"}, labels={"deployguard.dev/canary": "web"}, config_digest="sha256:c"
    )
    assert before == TEMPLATE
    assert {(r.kind, r.name) for r in references(mine) if r.pinnable} == {
        ("ConfigMap", "settings-dg-1"),
        ("Secret", "keys-dg-2"),
        ("ConfigMap", "other"),
    }
    assert [r.name for r in references(mine) if not r.pinnable] == ["storage", "registry"]
    assert mine["metadata"]["labels"] == {"app": "web", "deployguard.dev/canary": "web"}
    assert config_of(mine) == "sha256:c"
    back = pinned(mine, {ConfigRef("ConfigMap", "settings-dg-1"): "settings", ConfigRef("Secret", "keys-dg-2"): "keys"})
    assert digest(back) == digest(TEMPLATE)


def test_promotion_keeps_the_users_names_and_says_which_configuration() -> None:
    """The promoted template is the user's own with one annotation, and without one where no configuration is guarded."""
    assert references(promoted(TEMPLATE, "sha256:c")) == references(TEMPLATE)
    assert (config_of(promoted(TEMPLATE, "sha256:c")), digest(promoted(TEMPLATE, "sha256:c"))) == ("sha256:c", digest(TEMPLATE))
    assert promoted(TEMPLATE, NOTHING) == plain(TEMPLATE)
    assert config_of(TEMPLATE) is None


def test_an_image_is_set_by_the_containers_name() -> None:
    """Init containers too; a name that is not there is the user's error and lists the ones that are."""
    assert images(with_image(TEMPLATE, "proxy", "proxy:4")) == {"migrate": "shop:1", "proxy": "proxy:4", "app": "shop:1"}
    assert images(TEMPLATE)["proxy"] == "proxy:3"
    with pytest.raises(UserError) as error:
        with_image(TEMPLATE, "web", "shop:2")
    assert error.value.hint == "its containers are migrate, proxy, app"


def test_what_a_guard_cannot_hold_is_said() -> None:
    """A name that is not guarded, one that is guarded and read nowhere, a file by subPath, and secrets from outside the cluster."""
    template = copy.deepcopy(TEMPLATE)
    template["spec"]["containers"][0]["volumeMounts"][0]["subPath"] = "shop.yaml"
    template["spec"]["volumes"].append(
        {"name": "vault", "csi": {"driver": "secrets-store.csi.k8s.io", "volumeAttributes": {"secretProviderClass": "shop"}}}
    )
    assert unguardable(template, (SETTINGS, ConfigRef("ConfigMap", "flags"))) == (
        (
            "Secret keys is read (volume tls, projected volume both, envFrom of sidecar proxy, env TOKEN of container app) but not "
            "guarded: its changes reach pods unwatched; list it in `config`"
        ),
        "ConfigMap other is read (envFrom of container app) but not guarded: its changes reach pods unwatched; list it in `config`",
        (
            "ConfigMap flags is guarded but the pod template names it nowhere, so a canary cannot be given a content of its own; "
            "if the program reads it through the API server, canary and stable both read the source"
        ),
        "container app mounts ConfigMap settings by subPath (/etc/shop): a running pod never sees a change of it, only a new pod does",
        (
            "volume vault gets its secrets from outside the cluster (SecretProviderClass shop): their content is not guarded, "
            "and canary and stable read the same"
        ),
    )
    assert unguardable(TEMPLATE, (SETTINGS, KEYS, ConfigRef("ConfigMap", "other"))) == ()


def test_a_change_of_others_is_carried_over_and_nothing_else() -> None:
    """What they made of the candidate is made of stable: new and changed things by name stay, what they took away is gone, the trial too.

    Done twice it changes nothing more, and without a change of theirs it is stable itself.
    """
    stable = plain(TEMPLATE)
    tried = copy.deepcopy(stable)
    app = tried["spec"]["containers"][0]
    app["image"] = "shop:2"
    app["env"].append({"name": "NEW", "value": "1"})
    tried["spec"]["volumes"][0]["configMap"]["name"] = "settings-dg-1"
    theirs = copy.deepcopy(tried)
    theirs["metadata"]["annotations"]["restarted"] = "now"
    theirs["spec"]["containers"].append({"name": "extra", "image": "extra:1"})
    theirs["spec"]["containers"][0]["env"][1]["value"] = "/home"
    del theirs["spec"]["initContainers"][1]
    theirs["spec"]["imagePullSecrets"] = []
    found = merged(tried, theirs, stable)
    wanted = copy.deepcopy(stable)
    wanted["metadata"]["annotations"]["restarted"] = "now"
    wanted["spec"]["containers"].append({"name": "extra", "image": "extra:1"})
    wanted["spec"]["containers"][0]["env"][1]["value"] = "/home"
    del wanted["spec"]["initContainers"][1]
    wanted["spec"]["imagePullSecrets"] = []
    assert found == wanted
    assert merged(tried, found, stable) == found
    assert merged(tried, tried, stable) == merged(tried, stable, stable) == stable


def test_where_both_changed_a_thing_it_is_as_others_want_it() -> None:
    """An image that they set stays set; a list without names is theirs as a whole."""
    base = {"image": "shop:2", "args": ["--new"], "ports": [{"containerPort": 1}]}
    theirs = {"image": "shop:3", "args": ["--new", "--theirs"], "ports": [{"containerPort": 1}]}
    mine = {"image": "shop:1", "args": ["--old"], "ports": [{"containerPort": 2}], "command": ["shop"]}
    assert merged(base, theirs, mine) == {
        "image": "shop:3",
        "args": ["--new", "--theirs"],
        "ports": [{"containerPort": 2}],
        "command": ["shop"],
    }
