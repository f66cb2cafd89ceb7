"""Executes the runs of a sweep: one after another here, on a cluster on this machine, or on a given cluster."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
import uuid
from pathlib import Path

import environment
from environment import Refused

ANSWER_WITHIN = 4  # seconds in which a scheduler has to answer


class Connection:
    """A client of a scheduler that exists: connected in a thread from the start, and closed by `close`.

    In a thread, because a scheduler that does not answer would block the caller, and importing Dask is slow.
    Every client has to be closed and not left to the garbage collector: Dask's `Client.__del__` waits for a lock that
    the start of another cluster may hold, for ever.
    """

    def __init__(self, address: str):
        self.address, self._found, self._begun = address, None, time.monotonic()
        self._imported, self._lock, self._closed = threading.Event(), threading.Lock(), False
        self._thread = threading.Thread(target=self._connect, daemon=True)
        self._thread.start()

    def _connect(self):
        try:
            import distributed
            self._begun = time.monotonic()
            self._imported.set()
            # Ask the scheduler first: a client whose start fails cannot be closed.
            asyncio.run(_answers(self.address))
            self._found = distributed.Client(self.address, timeout=ANSWER_WITHIN)
        except Exception as error:
            self._found = error
        self._imported.set()
        with self._lock:
            if self._closed:  # the caller has given up
                _close(self._found)

    def client(self):
        """The client.

        Raises
        ------
        Refused
            Where the scheduler does not answer, and where its workers run several tasks at once.
        """
        self._imported.wait()
        self._thread.join(max(0.0, self._begun + ANSWER_WITHIN - time.monotonic()))
        if self._found is None or isinstance(self._found, Exception):
            raise Refused(f"the scheduler {self.address} does not answer within {ANSWER_WITHIN} s: is it running, "
                          "and does its address begin with tcp:// ?") from self._found
        workers = self._found.scheduler_info(n_workers=-1)["workers"]
        if any(worker["nthreads"] > 1 for worker in workers.values()):
            raise Refused(_TOO_MANY_THREADS)
        if not workers:
            print(f"the scheduler {self.address} has no workers yet: waiting for workers (Ctrl-C ends it)", flush=True)
        return self._found

    def close(self):
        """Close the client, now or as soon as it is found; to be called in any case, also after a refusal."""
        with self._lock:
            self._closed = True
            _close(self._found)


async def _answers(address: str):
    """Connect to a scheduler once: an OSError where it does not answer, a ValueError for what is no address."""
    from distributed.comm import connect
    comm = await connect(address, timeout=ANSWER_WITHIN)
    await comm.close()


def _close(found):
    if found is not None and not isinstance(found, Exception):
        found.close()


_TOO_MANY_THREADS = ("the cluster's workers run several tasks at once in one process, in which notebooks would share a "
                     "working folder: start them with one thread each (dask worker --nthreads 1 --nworkers N; for "
                     "SLURMCluster cores=N, processes=N)")


def execute(missing: list, output: Path, jobs: int, client=None, force: bool = False):
    """Run tasks, on the cluster of a ``client`` or here; yields (task, error) as they end, error "" where it ran.

    The caller closes a ``client`` that it gives. A cluster that is started here ends with this generator, which a
    caller that stops early has to close.
    """
    if not missing:
        return
    caller, threads = os.getcwd(), max(1, environment.cores() // jobs)
    if client is None and jobs == 1:
        import run_store
        for task in missing:
            yield task, run_store.execute_one(task, output, threads, caller, force)
        return
    import distributed
    with contextlib.ExitStack() as stack:
        if client is None:
            client = stack.enter_context(_here(min(jobs, len(missing))))
        else:
            threads = None  # each worker counts its own machine's cores
        waiting = {client.submit(_on_worker, str(environment.ROOT / "ci"), task.__dict__, str(output), threads, caller,
                                 force, key=f"{task.notebook}-{task.run}-{uuid.uuid4().hex[:6]}", pure=False): task
                   for task in missing}
        for future in distributed.as_completed(waiting):
            task = waiting[future]
            try:
                yield task, future.result()
            except Exception as error:
                yield task, f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _here(workers: int):
    """A client of a cluster of this machine; its workers ignore Ctrl-C, which this process handles."""
    import distributed
    with contextlib.ExitStack() as stack:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # new processes inherit this
        try:
            cluster = stack.enter_context(distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=50))
        finally:
            signal.signal(signal.SIGINT, before)
        yield stack.enter_context(distributed.Client(cluster))


def _on_worker(ci: str, task: dict, output: str, threads: int | None, caller: str, force: bool) -> str:
    """Runs on a worker, which imports these modules from the project's folder, so it needs access to that folder."""
    if ci not in sys.path:
        sys.path.insert(0, ci)
    import executors
    import run_store
    if threads is None:
        threads = executors.threads_here()
        if not threads:
            return executors._TOO_MANY_THREADS
    return run_store.execute_one(run_store.Task(**task), Path(output), threads, caller, force)


def threads_here() -> int:
    """On a worker: its share of the cores of its own machine; 0 where it runs several tasks at once."""
    from distributed import get_client, get_worker
    worker = get_worker()
    if worker.state.nthreads > 1:
        return 0
    everyone = get_client().scheduler_info(n_workers=-1)["workers"].values()
    beside = sum(other["host"] == worker.ip for other in everyone)
    return max(1, environment.cores() // max(1, beside))
