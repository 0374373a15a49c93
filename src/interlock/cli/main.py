"""The `interlock` command. Commands are imported when they are run, so that `--help` is quick."""

from __future__ import annotations

import sys
from typing import NoReturn

from cyclopts import App, Parameter

from interlock import __version__

_HERE = "interlock.cli"

app = App(
    name="interlock",
    help="The control plane that production AI agents run behind: the model proposes, the control plane decides.",
    version=__version__,
    help_format="plaintext",  # Markdown costs a third of the time that --help may take
    default_parameter=Parameter(negative_iterable=()),  # no --empty-… beside what may be repeated
)
app.command(f"{_HERE}.up:up", name="up", help="Serve the gate: MCP, HTTP API, embedded Postgres unless --database-url.")
app.command(f"{_HERE}.stdio:serve", name="mcp", help="MCP over standard input and output for a local client.")
app.command(f"{_HERE}.login:login", name="login", help="Log in at a server as yourself.")
app.command(f"{_HERE}.login:logout", name="logout", help="End the login at a server, there and here.")
app.command(f"{_HERE}.login:whoami", name="whoami", help="Say who you are to a server.")
app.command(f"{_HERE}.people:token", name="token", help="Get a session token for an agent acting for a user.")
app.command(
    f"{_HERE}.people:kill",
    name="kill",
    help="Stop execution in a scope, such as fleet, agent:A or tool:T, in every process.",
)
app.command(f"{_HERE}.people:resume", name="resume", help="Let execution go on in a scope that was stopped.")
app.command(f"{_HERE}.people:posture", name="posture", help="Set how worried a scope is: normal, guarded, read_only, halted.")
app.command(
    f"{_HERE}.people:revoke", name="revoke", help="End a session, or refuse what a user or agent was issued before now."
)
app.command(f"{_HERE}.people:status", name="status", help="What is stopped, which release decides, what is in flight.")
app.command(f"{_HERE}.budgets:budgets", name="budgets", help="How much of each budget is used, the fullest first.")
app.command(f"{_HERE}.breakers:breakers", name="breakers", help="Which tools are unstable, and what each process counted.")

_doubts = App(name="doubts", help="Calls whose end is not known, and a person's word on it.")
_doubts.command(f"{_HERE}.doubts:list_doubts", name="list", help="Calls in doubt, and which of them wait for a person.")
_doubts.command(f"{_HERE}.doubts:show", name="show", help="One call, and what follows from either answer.")
_doubts.command(f"{_HERE}.doubts:settle", name="settle", help="Say whether it was done, and how you know.")
app.command(_doubts)

app.command(f"{_HERE}.init:init", name="init", help="Write a first release around your own MCP server.")

_tools = App(name="tools", help="Bring tools in: import, review, and what has changed since.")
_tools.command(f"{_HERE}.tools:import_tool", name="import", help="Draft contracts from what an MCP server lists.")
_tools.command(f"{_HERE}.tools:review", name="review", help="Review drafts: one question each.")
_tools.command(f"{_HERE}.tools:diff", name="diff", help="What servers list now against what was reviewed.")
_tools.command(f"{_HERE}.toolsadmin:list_tools", name="list", help="What is pinned, quarantined, used, and how servers answer.")
_tools.command(f"{_HERE}.toolsadmin:accept", name="accept", help="Let a tool that changed upstream run as it is listed now.")
app.command(_tools)

_db = App(name="db", help="The database: the embedded Postgres, migrations, backups.")
_db.command(f"{_HERE}.db:start", name="start", help="Start the embedded Postgres and leave it running.")
_db.command(f"{_HERE}.db:url", name="url", help="Print the URL of the embedded Postgres.")
_db.command(f"{_HERE}.db:stop", name="stop", help="Stop the embedded Postgres.")
_db.command(f"{_HERE}.db:migrate", name="migrate", help="Bring a database to this version's schema.")
_db.command(f"{_HERE}.backup:back_up", name="backup", help="Write a backup into a new folder, while it goes on.")
_db.command(f"{_HERE}.backup:restore", name="restore", help="Load a backup into an empty database; read-only until resumed.")
_db.command(f"{_HERE}.backup:reconcile", name="reconcile", help="After a restore: put back what the marks tell of.")
app.command(_db)

app.command(f"{_HERE}.keys:make", name="keys", help="Make the keys that all gateways of an installation share.")

_release = App(name="release", help="The bundle of contracts, grants and policies that decides.")
_release.command(f"{_HERE}.release:check", name="check", help="Validate a release folder: every error with file and line.")
_release.command(f"{_HERE}.release:show", name="show", help="Show what a release compiles to (--cedar, --schema).")
_release.command(f"{_HERE}.releases:propose", name="propose", help="Put a release forward for somebody else to activate.")
_release.command(f"{_HERE}.releases:activate", name="activate", help="Make a proposed release decide, in every process.")
_release.command(f"{_HERE}.releases:rollback", name="rollback", help="Make an earlier release decide again.")
_release.command(f"{_HERE}.releases:history", name="history", help="Which releases were in force.")
app.command(_release)

_policy = App(name="policy", help="Ask what the policies say.")
_policy.command(f"{_HERE}.release:run", name="test", help="Run the release's own tests.")
_policy.command(f"{_HERE}.release:explain", name="explain", help="For one request: which policy of which layer said what.")
_policy.command(f"{_HERE}.diff:diff", name="diff", help="How two releases differ, and what they decide differently.")
app.command(_policy)
app.command(f"{_HERE}.canary:canary", name="canary", help="Make a secret to plant: whoever sends it off is stopped.")
app.command(
    f"{_HERE}.redteam:redteam", name="redteam", help="Attack a release in a dry world, and say what stopped each attack."
)

_approvals = App(name="approvals", help="What waits for people, and their answers.")
_approvals.command(f"{_HERE}.approvals:list_approvals", name="list", help="What waits for you.")
_approvals.command(f"{_HERE}.approvals:show", name="show", help="Exactly what would run, and why a person is asked.")
_approvals.command(f"{_HERE}.approvals:approve", name="approve", help="Let exactly this call through, once.")
_approvals.command(f"{_HERE}.approvals:deny", name="deny", help="Refuse a request.")
_approvals.command(f"{_HERE}.approvals:withdraw", name="withdraw", help="Take back a request or an unused approval.")
app.command(_approvals)

_trace = App(name="trace", help="What was called, what decided, and what came of it.")
_trace.command(f"{_HERE}.traces:list_traces", name="list", help="Recorded calls, newest first.")
_trace.command(f"{_HERE}.traces:show", name="show", help="One session or call as a story.")
_trace.command(f"{_HERE}.traces:export", name="export", help="Every recorded call of your tenant, as JSON lines or CSV.")
app.command(_trace)

_sessions = App(name="sessions", help="Agents acting for users, now and before.")
_sessions.command(f"{_HERE}.desk:list_sessions", name="list", help="Sessions, newest first.")
_sessions.command(f"{_HERE}.desk:show_session", name="show", help="One session, and the plan that it sealed.")
_sessions.command(f"{_HERE}.desk:end_session", name="end", help="End a session before its time.")
_sessions.command(f"{_HERE}.desk:start_fresh", name="fresh", help="Begin your work with an agent afresh, without taint.")
app.command(_sessions)
app.command(f"{_HERE}.desk:list_agents", name="agents", help="Agents of the release in force, their grants and their use.")
app.command(f"{_HERE}.desk:decide", name="decide", help="What would be decided, and why; nothing is run.")

_audit = App(name="audit", help="Check the record, and sign it.")
_audit.command(f"{_HERE}.record:verify", name="verify", help="Check every chain, commitment and signed head.")
_audit.command(f"{_HERE}.record:checkpoint", name="checkpoint", help="Sign the heads of all chains now.")
app.command(_audit)


def main() -> NoReturn:
    """Run the command line. Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 something could not be reached."""
    from interlock.cli.output import Failure, show_failure  # noqa: PLC0415  # kept out of the way of --help

    try:
        result = app(sys.argv[1:], result_action="return_value")
    except Failure as failure:
        sys.exit(show_failure(failure))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(result if isinstance(result, int) else 0)
