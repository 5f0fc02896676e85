#!/usr/bin/env python3
"""An agent that thinks in isolates and builds in a sandbox; see README.md."""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

URL = os.environ.get("ATOLL_URL", "http://127.0.0.1:8787")
TOKEN = os.environ["ATOLL_TOKEN"]

FIBONACCI = "let [a, b] = [0, 1]; for (let i = 0; i < input; i++) [a, b] = [b, a + b]; return a"

FILES = {
    "pyproject.toml": '[project]\nname = "project"\nversion = "1.0.0"\n',
    "fibonacci.py": "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
    "vendor/shout/__init__.py": "def shout(text):\n    return text.upper() + '!'\n",
    "test_project.py": """import unittest
from fibonacci import fibonacci
from shout import shout

class Project(unittest.TestCase):
    def test_the_package_is_there(self):
        self.assertEqual(shout("hi"), "HI!")

    def test_both_worlds_agree(self):
        self.assertEqual(fibonacci(30), {expected})
""",
}


class Refused(Exception):
    """A problem document of the API."""

    def __init__(self, problem):
        super().__init__(f"{problem['detail']} ({problem['code']})")
        self.code = problem["code"]


def call(method, path, body=None, raw=None):
    """One call of the API: JSON in and out, or bytes in."""
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    kind = "application/octet-stream" if raw is not None else "application/json"
    headers = {"authorization": f"Bearer {TOKEN}"} | ({"content-type": kind} if data is not None else {})
    request = urllib.request.Request(URL + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise Refused(json.load(error)) from None
    return json.loads(text) if text else None


class Sandbox:
    """One user's sandbox; made on first use."""

    def __init__(self, user):
        self.path = "/v1/sandboxes/" + urllib.parse.quote(user, safe="")

    def exec(self, command, **options):
        return call("POST", self.path + "/exec", {"command": command, "timeoutMs": 60_000} | options)

    def must(self, command, **options):
        done = self.exec(command, **options)
        if not done["success"]:
            raise RuntimeError(f"{command}: {done['stderr'] or done['stdout']}")
        return done

    def write(self, path, text):
        folder = path.rpartition("/")[0]
        if folder:
            call("POST", self.path + "/files/mkdir", {"path": folder, "recursive": True})
        call("PUT", self.path + "/files?path=" + urllib.parse.quote(path, safe=""), raw=text.encode())


def main(user):
    # Cheap and quick: a fresh isolate for a question.
    thought = call("POST", "/v1/execute", {"code": FIBONACCI, "input": 30, "runtime": "isolate"})
    expected = thought["result"]
    sandbox = Sandbox(user)
    try:
        # The repository that the agent is to work on; a real one would be there already.
        for path, text in FILES.items():
            sandbox.write("origin/" + path, text.replace("{expected}", str(expected)))
        identity = "-c user.email=agent@example.com -c user.name=agent"
        sandbox.must(f"git init -q -b main . && git add . && git {identity} commit -qm 'A project'", cwd="origin")
        # Work: clone, install what is vendored, run the tests.
        call("POST", sandbox.path + "/git/checkout", {"url": "/workspace/origin", "targetDir": "project"})
        sandbox.must("mkdir -p site && cp -r vendor/shout site/", cwd="project")
        tests = sandbox.exec("python3 -m unittest -v", cwd="project", env={"PYTHONPATH": "site"})
        total = call("GET", sandbox.path + "/usage")["total"]
        report = {
            "fibonacci": expected,
            "tests": {"success": tests["success"], "pass": tests["stderr"].count("... ok")},
            "usage": {"cpuMs": total["cpuUs"] // 1000, "wallMs": total["wallUs"] // 1000},
        }
    finally:
        try:
            call("DELETE", sandbox.path)
        except Refused as refused:
            if refused.code != "SANDBOX_NOT_FOUND":
                raise
    print(json.dumps(report))
    return 0 if report["tests"]["success"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "agent"))
