"""Runs modules of CPython's own test suite and writes one line for each test: its verdict and its name.

usage: cpython.py [-j JOBS] [-o TEST] [-x TEST] MODULE ...
  -j JOBS  modules that run at once (2)
  -o TEST  only tests whose names contain this; may be repeated
  -x TEST  no tests whose names contain this; may be repeated

A module is named as in the package `test`. What its tests print, and the time that each took, goes to
standard error when the module has ended. A test that runs longer than LIMIT seconds has hung: its module is
given up, and the tests behind it have no verdict.
"""
import argparse, faulthandler, os, queue, shutil, subprocess, sys, tempfile, threading, time, unittest

LIMIT = 90
ORDER = ["ok", "skipped", "expected", "unexpected", "failed", "error"]


class Verdicts(unittest.TestResult):
    """Writes a line to the descriptor `out` as each test ends. Of a test with subtests the worst counts."""

    def __init__(self, out):
        super().__init__()
        self.out = out

    def say(self, verdict, test): os.write(self.out, f"{verdict} {test.id()}\n".encode())

    def startTest(self, test):
        super().startTest(test)
        faulthandler.dump_traceback_later(LIMIT, exit=True, file=sys.__stderr__)
        self.verdict, self.begun = "ok", time.monotonic()
        os.write(2, f"\n=== {test.id()}\n".encode())

    def stopTest(self, test):
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        os.write(2, f"--- {self.verdict} {time.monotonic() - self.begun:.2f} s\n".encode())
        self.say(self.verdict, test)

    def worst(self, verdict, test, why):
        os.write(2, why.encode("utf-8", "replace") + b"\n")
        if not isinstance(test, unittest.TestCase) and not hasattr(test, "test_case"):
            self.say(verdict, test)  # of a class or a module as a whole
        elif ORDER.index(verdict) > ORDER.index(self.verdict):
            self.verdict = verdict

    def addError(self, test, err): self.worst("error", test, self._exc_info_to_string(err, test))
    def addFailure(self, test, err): self.worst("failed", test, self._exc_info_to_string(err, test))
    def addSubTest(self, test, sub, err): err and self.worst("failed", sub, self._exc_info_to_string(err, test))
    def addSkip(self, test, reason): self.worst("skipped", test, reason)
    def addExpectedFailure(self, test, err): self.worst("expected", test, "expected")
    def addUnexpectedSuccess(self, test): self.worst("unexpected", test, "unexpected")


def tests_of(suite):
    for test in suite:
        yield from tests_of(test) if isinstance(test, unittest.TestSuite) else [test]


def run_module(module, out, only, without):
    from test import support
    from test.support import os_helper
    support.use_resources = ["network", "subprocess", "walltime"]
    with os_helper.temp_cwd(f"{module}-{os.getpid()}"):
        tests = list(tests_of(unittest.defaultTestLoader.loadTestsFromName("test." + module)))
        tests = [t for t in tests if not any(name in t.id() for name in without)]
        tests = [t for t in tests if not only or any(name in t.id() for name in only)]
        # Whole classes stay together, so that what is set up for a class is so once.
        unittest.TestSuite(tests).run(Verdicts(out))
    support.reap_children()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-j", type=int, default=2)
    parser.add_argument("-o", action="append", default=[])
    parser.add_argument("-x", action="append", default=[])
    parser.add_argument("--to", type=int)
    parser.add_argument("modules", nargs="+")
    args = parser.parse_args()
    if args.to is not None:
        os.set_inheritable(args.to, False)
        return run_module(args.modules[0], args.to, args.o, args.x)
    waiting, lock = queue.SimpleQueue(), threading.Lock()
    for module in args.modules: waiting.put(module)
    chosen = [f"-o{name}" for name in args.o] + [f"-x{name}" for name in args.x]

    def work():
        while True:
            try: module = waiting.get_nowait()
            except queue.Empty: return
            with tempfile.TemporaryFile() as log:
                begun = time.monotonic()
                run = subprocess.run([sys.executable, "-u", __file__, "--to", "1000", *chosen, module],
                                     stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[1000])
                os.write(1000, f"ended:{run.returncode} {module}\n".encode())
                with lock:
                    log.seek(0)
                    shutil.copyfileobj(log, sys.stderr.buffer)
                    print(f"\n##### {module} took {time.monotonic() - begun:.0f} s\n", file=sys.stderr, flush=True)

    os.dup2(1, 1000)
    workers = [threading.Thread(target=work) for _ in range(args.j)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()


if __name__ == "__main__":
    main()
