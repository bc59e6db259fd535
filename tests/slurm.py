"""A real Slurm on this machine: munge, controller and one node, in a folder, as long as a test needs it."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from conftest import patience

from harness.launcher import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
SBIN = os.pathsep.join(["/usr/sbin", "/sbin"])


def missing() -> list[str]:
    """What of Slurm is not installed, or cannot be used."""
    path = os.environ["PATH"] + os.pathsep + SBIN
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    return absent or ([] if os.geteuid() == 0 else ["root's rights"])


class Slurm:
    """Started below `folder`; `env` is what its clients need. requeue_exit: whether status 75 puts a job back."""

    def __init__(self, folder: Path, requeue_exit: bool = True) -> None:
        self.folder, self.host = folder, socket.gethostname().split(".")[0]
        folder.chmod(0o755)
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        self.conf = folder / "slurm.conf"
        self.processes: dict[str, subprocess.Popen] = {}
        self.hurried: set[str] = set()
        self.env = os.environ | {"SLURM_CONF": str(self.conf), "PATH": os.environ["PATH"] + os.pathsep + SBIN}
        cores = len(os.sched_getaffinity(0))
        key, sock = folder / "munge.key", folder / "munge.socket"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        ports = [free_port() for _ in range(2)]
        self.conf.write_text(f"""
ClusterName=test
SlurmctldHost={self.host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={sock}
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
JobRequeue=1
{"RequeueExit=75" if requeue_exit else ""}
MailProg=/bin/true
KillWait=20
SchedulerParameters=sched_interval=2,bf_interval=5,sched_min_interval=500000
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={self.host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes={self.host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
""")
        files = {"key-file": key, "socket": sock, "log-file": folder / "munged.log", "pid-file": folder / "munged.pid",
                 "seed-file": folder / "munged.seed"}  # fmt: skip
        try:
            self._start("munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items()))
            self.start_controller()
            self._start("slurmd", "-D", "-f", str(self.conf), "-N", self.host)
            self.until(lambda: "idle" in self.call("sinfo", "--noheader", "--format=%t", check=False), 60)
        except BaseException:
            self.stop()
            raise

    def _start(self, *command: str) -> None:
        with open(self.folder / f"{command[0]}.out", "ab") as out:
            self.processes[command[0]] = subprocess.Popen(
                command, env=self.env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def start_controller(self) -> None:
        self._start("slurmctld", "-D", "-f", str(self.conf))

    def stop_controller(self) -> None:
        self.processes["slurmctld"].terminate()
        self.processes["slurmctld"].wait(30)

    def call(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env=self.env, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """State of every task in the queue."""
        lines = self.call("squeue", "--noheader", "--array", "--format=%i|%T").splitlines()
        return dict(line.split("|") for line in lines)

    def hurry(self) -> None:
        """Slurm lets requeued jobs wait for two minutes; these need not. Its node refuses a job in the second it left."""
        waiting = {number for number, state in self.jobs().items() if state == "PENDING"}
        for number in waiting - self.hurried:
            self.call("scontrol", "update", f"JobId={number}", "StartTime=now+5", check=False)
        self.hurried = waiting

    def until(self, true, seconds: float, hurry: bool = False) -> None:
        """Waits until `true()`; fails after that many seconds, or more on a slower machine."""
        end = time.monotonic() + max(seconds, patience(seconds / 2))
        while not true():
            assert time.monotonic() < end, self.call("squeue", check=False)
            if hurry:
                self.hurry()
            time.sleep(0.3)

    def stop(self) -> None:
        self.call("scancel", "--full", "--user=root", check=False)
        time.sleep(1)
        for name in ("slurmd", "slurmctld", "munged"):
            if name in self.processes:
                self.processes[name].send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
