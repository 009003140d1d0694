"""What a signal does in the moments in which Python or a library would swallow it."""

import signal
import subprocess
import sys
import textwrap

import pytest

BEGIN = """
    import os, signal, sys, time
    from tilemapper.cli.main import outcome
    from tilemapper.cli.signals import listen
    from tilemapper.errors import Interrupted
    listen()
    def ask():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
"""


def ended(body):
    """Exit code and stderr of a program that listens, and may call ``ask`` for its own end."""
    program = textwrap.dedent(BEGIN) + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


LINE = "interrupted by signal 15; run the same command to go on\n"


def test_an_interruption_that_a_library_swallows_is_raised_again():
    body = """
    def work():
        try:
            ask()
        except BaseException:
            pass
        time.sleep(20)
    sys.exit(outcome(work))
    """
    assert ended(body) == (143, LINE)


def test_an_interruption_in_a_finalizer_is_raised_again_and_says_one_line():
    body = """
    class Closed:
        def __del__(self):
            ask()
    def work():
        Closed()
        time.sleep(20)
    sys.exit(outcome(work))
    """
    assert ended(body) == (143, LINE)


def test_an_interruption_that_a_library_makes_its_own_failure_of_is_still_one():
    body = """
    def work():
        try:
            ask()
        except BaseException as error:
            raise ValueError("validator") from error
    sys.exit(outcome(work))
    """
    assert ended(body) == (143, LINE)


def test_a_command_that_did_not_end_well_after_a_swallowed_interruption_was_interrupted():
    body = """
    def work():
        try:
            ask()
        except BaseException:
            return 3
    sys.exit(outcome(work))
    """
    assert ended(body) == (143, LINE)


def test_a_command_that_has_said_what_goes_on_says_it_once():
    body = """
    from tilemapper.cli.signals import farewell
    def work():
        try:
            ask()
        except BaseException:
            return farewell(15)
    sys.exit(outcome(work))
    """
    assert ended(body) == (143, LINE)


def test_what_is_being_cleared_up_is_not_disturbed():
    body = """
    def work():
        try:
            ask()
        finally:
            time.sleep(2.5)
            print("cleared up", file=sys.stderr)
    sys.exit(outcome(work))
    """
    assert ended(body) == (143, "cleared up\n" + LINE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_end_changes_nothing(number):
    body = f"""
    import atexit
    atexit.register(lambda: os.kill(os.getpid(), {int(number)}))
    sys.exit(outcome(lambda: 0))
    """
    assert ended(body) == (0, "")


def test_a_signal_while_the_command_is_loaded_is_one_line():
    body = """
    import sys
    for name in [n for n in sys.modules if n.startswith(("tilemapper.cli", "click"))]:
        del sys.modules[name]
    class Asking:
        def find_spec(self, name, path=None, target=None):
            if name == "click":
                ask()
    sys.meta_path.insert(0, Asking())
    from tilemapper.__main__ import main
    main()
    """
    assert ended(body) == (143, LINE)


def test_a_library_that_is_being_loaded_is_loaded_to_its_end_first(tmp_path):
    """Its C++ may abort the process otherwise."""
    module = "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\n"
    module += "time.sleep(0.5)\nopen(__file__ + '.loaded', 'w').close()\n"
    (tmp_path / "slowly_loaded.py").write_text(module)
    body = f"""
    sys.path.insert(0, {str(tmp_path)!r})
    def work():
        import slowly_loaded
        time.sleep(20)
    sys.exit(outcome(work))
    """
    assert ended(body) == (143, LINE)
    assert (tmp_path / "slowly_loaded.py.loaded").exists()


def test_an_interrupted_process_is_not_aborted_by_what_a_library_does_at_its_end():
    """An import that was interrupted had begun a thread, which C++ found at the end (1 of 10)."""
    body = """
    import atexit, ctypes
    import tilemapper.cli.main as started
    c = ctypes.CDLL(None)
    c.__cxa_atexit(c.abort, None, None)
    atexit.register(lambda: print("cleared up", file=sys.stderr))
    started.run = lambda _: outcome(ask)
    started.main()
    """
    assert ended(body) == (143, LINE + "cleared up\n")
