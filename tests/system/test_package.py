"""The Debian package: its content, the same bytes from each build, and a program that runs.

test_install installs it in a booted Debian, upgrades it under load, removes and purges it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from documents import ROOT

from syncd import __version__

pytestmark = pytest.mark.long

PACKAGE = ROOT / "systemd" / "package"
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
EPOCH = "1790000000"
PYTHON = "/usr/bin/python3"

# Users and other programs use these paths. All other files are in /opt/syncd, or documents.
FILES = {
    "/etc/syncd/config.toml": "-rw-r-----",
    "/opt/syncd/bin/python -> /usr/bin/python3": "lrwxrwxrwx",
    "/opt/syncd/bin/syncd": "-rwxr-xr-x",
    "/opt/syncd/share/syncd/config.example.toml": "-rw-r--r--",
    "/opt/syncd/share/syncd/datasette.json": "-rw-r--r--",
    "/opt/syncd/share/syncd/monitoring/alerts.yml": "-rw-r--r--",
    "/opt/syncd/share/syncd/monitoring/grafana.json": "-rw-r--r--",
    "/usr/bin/syncd -> /opt/syncd/bin/syncd": "lrwxrwxrwx",
    "/usr/lib/systemd/system/syncd.service": "-rw-r--r--",
    "/usr/lib/systemd/system/syncd.socket": "-rw-r--r--",
    "/usr/lib/systemd/system/syncd@.service": "-rw-r--r--",
    "/usr/lib/systemd/system/syncd@.socket": "-rw-r--r--",
    "/usr/lib/sysusers.d/syncd.conf": "-rw-r--r--",
    "/usr/lib/tmpfiles.d/syncd.conf": "-rw-r--r--",
    "/usr/share/bash-completion/completions/syncd": "-rw-r--r--",
    "/usr/share/doc/syncd/copyright": "-rw-r--r--",
    "/usr/share/doc/syncd/examples -> syncd/examples": "lrwxrwxrwx",
    "/usr/share/doc/syncd/config.example.toml": "-rw-r--r--",
    "/usr/share/fish/vendor_completions.d/syncd.fish": "-rw-r--r--",
    "/usr/share/zsh/vendor-completions/_syncd": "-rw-r--r--",
}


def run(*command: str | Path) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(folder: Path) -> subprocess.Popen[str]:
    """Start a build; its folder of work has another name each time."""
    return subprocess.Popen(
        [PACKAGE / "build", folder],
        env=os.environ | {"SOURCE_DATE_EPOCH": EPOCH},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Build twice, both at once."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed: this is not Debian")
    if subprocess.run([PYTHON, "-c", "import ensurepip"], check=False).returncode:
        pytest.skip("python3-venv is not installed")
    builds = [build(tmp_path_factory.mktemp("build")) for _ in range(2)]
    done = [(one.communicate(timeout=300), one.returncode) for one in builds]
    assert [code for _, code in done] == [0, 0], done
    return [Path(output.strip()) for (output, _), _ in done]


@pytest.fixture(scope="module")
def package(packages: list[Path]) -> Path:
    """Give one of the two."""
    return packages[0]


@pytest.fixture(scope="module")
def root(package: Path) -> Iterator[Path]:
    """Give a folder with the files of the package."""
    with tempfile.TemporaryDirectory(prefix="syncd-root.") as folder:
        run("dpkg-deb", "--extract", package, folder)
        yield Path(folder)


@pytest.fixture(scope="module")
def control(package: Path) -> Callable[[str], str]:
    """Read a field of the package."""
    return lambda name: run("dpkg-deb", "--field", package, name).strip()


def test_each_build_gives_the_same_bytes(packages: list[Path]) -> None:
    """Times, names of folders, orders and compiled modules included."""
    one, two = packages
    assert one.name == two.name
    assert sha256(one.read_bytes()).digest() == sha256(two.read_bytes()).digest()


def test_the_version_names_the_release_and_the_time(control: Callable[[str], str]) -> None:
    """A later commit is an upgrade, and so is the next release of Debian."""
    version = control("Version")
    pattern = rf"{re.escape(__version__)}-20260921\d{{6}}~(debian|ubuntu)[\d.]+"
    assert re.fullmatch(pattern, version), version
    found = run(PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    assert f"python3 (>= {found})" in control("Depends")


def test_every_file_is_in_its_place(package: Path) -> None:
    """With the modes that users rely on, and root as its owner."""
    rows = [row.split(maxsplit=5) for row in run("dpkg-deb", "--contents", package).splitlines()]
    assert {row[1] for row in rows} == {"root/root"}
    found = {row[5].removeprefix("."): row[0] for row in rows}
    assert {name: found.get(name) for name in FILES} == FILES
    places = {"/etc/syncd", "/opt/syncd", "/usr/bin", "/usr/lib", "/usr/share"}
    strangers = [
        name
        for name in found
        if not any(name.startswith(place) or place.startswith(name[:-1]) for place in places)
    ]
    assert strangers == []
    assert found["/etc/syncd/"] == "drwxr-x---"


def test_the_configuration_is_a_conffile(package: Path, root: Path) -> None:
    """An upgrade keeps the operator's file. It differs from the example by the file of keys."""
    assert run("dpkg-deb", "--info", package, "conffiles") == "/etc/syncd/config.toml\n"
    shipped = tomllib.loads((root / "etc/syncd/config.toml").read_text())
    example = tomllib.loads((ROOT / "config.example.toml").read_text())
    example["dreamship"]["api_key_file"] = "api-keys"
    assert shipped == example
    assert "/etc/syncd/api-keys" in (root / "usr/lib/tmpfiles.d/syncd.conf").read_text()


def test_no_file_names_a_version_of_python(root: Path) -> None:
    """Outside of the virtual environment; inside, syncd's own files do not either.

    But compiled modules, which have their own path.
    """
    venv = root / "opt/syncd/lib"
    own = [*venv.glob("python3*/site-packages/syncd/**/*.*")]
    others = [path for path in root.rglob("*") if not path.is_relative_to(venv)]
    files = [
        path
        for path in own + others
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc"
    ]
    assert len(own) > 100
    naming = [path for path in files if re.search(rb"/python3\.\d", path.read_bytes())]
    assert naming == []


def test_no_file_names_the_folder_of_the_build(root: Path) -> None:
    """Compiled modules have the path of the installed source."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in files if b"syncd-package." in path.read_bytes()] == []
    (compiled,) = (root / "opt/syncd/lib").glob(
        "python3*/site-packages/syncd/__pycache__/__main__*"
    )
    # PEP 552: the flags of a hash that is not checked.
    assert compiled.read_bytes()[4:8] == b"\x01\x00\x00\x00"
    assert b"/opt/syncd/lib/python3" in compiled.read_bytes()


def test_only_pinned_packages_are_in_it(root: Path) -> None:
    """Each in the version of requirements.txt, but pip, which only the build needs."""
    pinned = dict(
        re.findall(
            r"^([\w.-]+)==(\S+)", (ROOT / "systemd/requirements.txt").read_text(), re.MULTILINE
        )
    )
    found = {
        path.name.removesuffix(".dist-info").rsplit("-", 1)[0].replace("_", "-"): path.name
        for path in (root / "opt/syncd/lib").glob("python3*/site-packages/*.dist-info")
    }
    assert "dreamship-syncd" in found
    for name, folder in found.items():
        if name != "dreamship-syncd":
            assert folder.removesuffix(".dist-info").endswith(f"-{pinned[name]}")
    assert "pip" not in found


def test_the_program_runs(root: Path, tmp_path: Path) -> None:
    """From the extracted files, with the interpreter of the release and nothing else."""
    interpreter, program = root / "opt/syncd/bin/python", root / "opt/syncd/bin/syncd"
    assert program.read_text().startswith("#!/opt/syncd/bin/python\n")
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}

    def syncd(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [interpreter, program, *arguments],
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert syncd("--version").stdout == f"syncd, version {__version__}\n"
    done = syncd("demo", "--seconds", "6", "--json")
    assert done.returncode == 0, done.stderr
    # A refused start names the file of keys, which is empty in a fresh installation.
    shutil.copy(root / "etc/syncd/config.toml", tmp_path)
    (tmp_path / "api-keys").touch()
    done = syncd("check-config", "-c", "config.toml")
    assert done.returncode == 2
    assert "dreamship.api_key_file: holds no api key" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completions_are_readable(root: Path, shell: str) -> None:
    """By the shell that loads them."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed (Debian's package of that name)")
    files = {
        "bash": "usr/share/bash-completion/completions/syncd",
        "zsh": "usr/share/zsh/vendor-completions/_syncd",
        "fish": "usr/share/fish/vendor_completions.d/syncd.fish",
    }
    file = root / files[shell]
    run(shell, "-n", file)
    assert f"_SYNCD_COMPLETE={shell}_complete" in file.read_text()
    # compinit finds a function by the first line of its file, and runs the file at each TAB.
    if shell == "zsh":
        assert file.read_text().startswith("#compdef syncd\n")
        assert file.read_text().endswith('}\n\n_syncd_completion "$@"\n')


def test_the_container_file_names_files_that_exist() -> None:
    """Each source of a copy; a user without rights; the folder of the mirror, not the file."""
    text = (ROOT / "systemd" / "Containerfile").read_text()
    sources = [
        words.split()[:-1] for words in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
    ]
    assert len(sources) == 3
    assert [name for names in sources for name in names if not (ROOT / name).exists()] == []
    assert re.findall(r"^(?:USER|VOLUME) (.*)$", text, re.MULTILINE) == [
        "8787:8787",
        "/var/lib/syncd",
    ]
    assert "/healthz" in text
    assert not re.search(r"python3\.\d", text)


def test_the_scripts_are_sound() -> None:
    """The build and the four scripts of the package."""
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (Debian's package of that name)")
    run("shellcheck", *(PACKAGE / name for name in ("build", *SCRIPTS)))
