"""The unit file and manifests in docs/deployment.md are read by what reads such files."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

TEXT = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def manifests() -> list[dict[str, Any]]:
    return [each for block in blocks("yaml") for each in yaml.safe_load_all(block) if "kind" in each]


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    spec = manifest["spec"]
    found: dict[str, Any] = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]
    return found


def drain_seconds(arguments: list[str]) -> int:
    return int(arguments[arguments.index("--drain-seconds") + 1])


def test_a_worker_has_more_time_to_end_than_its_drain_takes() -> None:
    (deployment,) = [each for each in manifests() if each["kind"] == "Deployment"]
    (container,) = pod(deployment)["containers"]
    assert pod(deployment)["terminationGracePeriodSeconds"] > drain_seconds(container["args"])
    (text,) = blocks("ini")
    unit = configparser.RawConfigParser(strict=False)
    unit.read_string(text)
    assert unit.getint("Service", "TimeoutStopSec") > drain_seconds(unit.get("Service", "ExecStart").split())


def test_only_liveness_restarts_a_pod() -> None:
    (deployment,) = [each for each in manifests() if each["kind"] == "Deployment"]
    (container,) = pod(deployment)["containers"]
    asked = {name: container[name]["exec"]["command"][-1] for name in ("livenessProbe", "readinessProbe")}
    assert "/livez" in asked["livenessProbe"]
    assert "/readyz" in asked["readinessProbe"]


@pytest.mark.parametrize("kind", ["Job", "CronJob", "Deployment"])
def test_what_containers_are_told_are_commands_there_are(kind: str) -> None:
    from click.testing import CliRunner

    from eventic_core.cli import main

    for manifest in (each for each in manifests() if each["kind"] == kind):
        (container,) = pod(manifest)["containers"]
        words = container.get("args") or container["command"][-1].split()[2:]
        command = [word for word in words[:2] if word.isalpha()]
        assert CliRunner().invoke(main, [*command, "--help"]).exit_code == 0
