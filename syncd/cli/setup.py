"""`syncd setup`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from syncd.cli import common, setup_answers, setup_apply, setup_output
from syncd.cli.common import config_option, json_option
from syncd.cli.setup_answers import Answers, Flags
from syncd.cli.setup_output import INTERRUPTED, Report
from syncd.cli.setup_questions import SERVERS, Asker
from syncd.config import KEYS_VARIABLE, SYSTEM_PATH, environment, parse
from syncd.config.files import MAX_BYTES, reason
from syncd.errors import UsageError
from syncd.setup import key_sources, places, plan, programs, service
from syncd.setup.key_sources import KeySource
from syncd.setup.places import Place


@click.command(
    "setup",
    short_help="Ask, test the key, configure and start: the first command.",
    epilog="""\b
Examples:
  syncd setup                       asks for everything
  syncd setup --yes --key-file - <key --public-url https://hooks.example.com""",
)
@click.option(
    "--key-file", metavar="FILE", help="Take the api key from a file; `-`: from standard input."
)
@click.option(
    "--sellable",
    metavar="VALUE",
    multiple=True,
    help="A value of availability that may be sold; several times.",
)
@click.option("--public-url", metavar="URL", help="The https address to which Dreamship sends.")
@click.option(
    "--shop-user",
    "shop_users",
    metavar="USER",
    multiple=True,
    help="A user that reads the mirror; several times. `none`: nobody.",
)
@click.option("--listings", metavar="FILE", help="The CSV file with the SKUs. `none`: without.")
@click.option(
    "--proxy",
    "server",
    type=click.Choice(SERVERS),
    help="The web server for which to print the site.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait for the first delivery.")
@click.option("--yes", "-y", "takes_defaults", is_flag=True, help="Ask nothing; take the defaults.")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="")
@config_option
@json_option
def command(
    config_path: str | None,
    key_file: str | None,
    extra: tuple[str, ...],
    *,
    no_wait: bool,
    takes_defaults: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Set syncd up: ask for the api key and the settings, test them, write them and start it.

    As root it configures and starts the daemon that systemd runs. Another user gets a configuration
    in the current folder. Run it again at any time: it changes only what differs, and keeps
    comments and other settings. Nothing is written before the last question is answered.

    The api key comes from --key-file, $SYNCD_DREAMSHIP_API_KEYS or a question that does not show
    it, never from an argument: every user of the host can see arguments.
    """
    if extra:
        # It may be an api key, so it is not repeated.
        raise UsageError(
            "setup takes no argument; every user of this host can see an api key there",
            hint="use --key-file FILE, or --key-file - to read standard input",
        )
    flags = Flags(key_text=_key_text(key_file), **given)
    run = _Setup(config_path, flags, Report(as_json=as_json), Asker(takes_defaults=takes_defaults))
    try:
        return run.run(waits=not no_wait and sys.stderr.isatty())
    except (KeyboardInterrupt, click.Abort):
        run.report.note("")
        run.report.note(f"Interrupted: {run.state}")
        return INTERRUPTED


def _key_text(key_file: str | None) -> str | None:
    """Return the text with the keys, None to ask for it. Errors do not repeat the name."""
    if key_file is None:
        variable = os.environ.get(KEYS_VARIABLE, "")
        return variable if variable.strip(", \t\n") else None
    try:
        if key_file == "-":
            return sys.stdin.buffer.read(MAX_BYTES).decode()
        # It may also be a pipe of the shell: <(pass show dreamship)
        with Path(key_file).open("rb") as file:
            return file.read(MAX_BYTES).decode()
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"the file of --key-file cannot be read: {reason(error)}",
            hint="name a file, not the key itself: every user of this host can see arguments",
        ) from None


class _Setup:
    """One run. `state` describes the result of an interrupt."""

    def __init__(self, config_path: str | None, flags: Flags, report: Report, asker: Asker) -> None:
        self._config_path = config_path
        self._flags = flags
        self._asker = asker
        self._run = programs.run
        self.report = report
        self.state = "nothing is written."

    def run(self, *, waits: bool) -> int:
        """Do everything, and return the exit code."""
        report, run = self.report, self._run
        place = places.locate(self._config_path, os.environ)
        setup_apply.require_host(place, run)
        report.say(f"Configuration: {place.path}{' (new)' if place.text is None else ''}")
        if not place.is_system and SYSTEM_PATH.parent.exists():
            report.say(f"For the daemon of {SYSTEM_PATH}, run it as root.")
        answers = self._answers(place)
        again = "run `syncd setup` again, it keeps all answers"
        self.state = f"the configuration may not be complete; {again}."
        owner = setup_apply.daemon_user(place, run)
        # The files that come with the user include an empty one for the keys.
        self._source = self._key_source(place)
        made = self._plan(place, answers, owner)
        if place.is_system:
            setup_apply.require_readable(made, run)
        changed = setup_apply.write(made, report.say)
        self.state = f"the configuration is written; {again}, to start the daemon."
        access = setup_apply.let_read(place, made, answers.shop_users, run, report.say)
        started = setup_apply.start(place, made, changed, run, report.say)
        is_served = place.is_system and service.is_booted()
        upstream = (service.listener(run) if is_served else "") or made.config.webhook.listen.text
        report.made(
            place,
            answers,
            made,
            written=changed,
            access=access,
            started=started,
            upstream=upstream,
        )
        self.state = "everything is set up."
        code = setup_output.finish(
            report,
            made.config,
            place,
            answers,
            run,
            waits=waits,
            is_served=is_served,
            has_credential=self._source.is_credential,
        )
        report.end()
        return code

    def _answers(self, place: Place) -> Answers:
        """Ask everything; the configuration that comes out is right, or this raises."""
        text = place.text
        if text is None:
            text = places.initial_text(is_system=place.is_system)
        config = parse(text, place.path, os.environ, with_keys=False)
        environment.require_network(config, os.environ)
        self._config = config
        self._source = self._key_source(place)
        common.secrets.update(key.reveal() for key in self._source.keys)
        answers = setup_answers.collect(
            config,
            self._source,
            self._flags,
            self._asker,
            self.report.say,
            is_system=place.is_system,
        )
        self._plan(place, answers, None)
        return answers

    def _key_source(self, place: Place) -> KeySource:
        credential = service.credential_file(self._run) if place.is_system else None
        return key_sources.find(place, self._config, credential)

    def _plan(self, place: Place, answers: Answers, owner: tuple[int, int] | None) -> plan.Plan:
        values = plan.wanted_values(
            self._config,
            sellable=answers.sellable,
            public_url=answers.public_url,
            listings=answers.listings,
        )
        return plan.plan(place, self._source, answers.keys, values, owner=owner)
