"""The same cluster with accounting: MariaDB and slurmdbd of its own, one account, one user, a few limits.

python -m tests.slurm.accounting up|down|status FOLDER
"""

import shutil
import subprocess
import sys

from tests.slurm.cluster import STARTUP, Cluster, main
from tests.slurm.daemons import free_ports, program

NEEDED = ("mariadbd", "mariadb-install-db", "mariadb", "slurmdbd", "sacctmgr")
PASSWORD = "of-a-test"
DAEMON = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""
SETTINGS = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
"""
SQL = f"""CREATE DATABASE slurm; CREATE USER slurm@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON slurm.* TO slurm@'127.0.0.1';"""


def missing_accounting() -> str:
    absent = [name for name in NEEDED if not program(name)]
    return f"no {', '.join(absent)} here (Debian: apt install mariadb-server slurmdbd)" if absent else ""


class AccountedCluster(Cluster):
    def start(self) -> None:
        *_, self._database, self._accounting = free_ports(len(self.nodes) + 3)  # the first ones are taken
        super().start()

    def start_controller(self) -> None:
        """After what it notes its jobs in."""
        if "slurmdbd" not in self._daemons:
            self._start_database()
            self._start_accounting()
        super().start_controller()

    def _configure(self) -> None:
        super()._configure()
        path = self.folder / "slurm.conf"
        ours = SETTINGS.format(port=self._accounting, folder=self.folder)
        path.write_text(path.read_text().replace("AccountingStorageType=accounting_storage/none\n", ours))

    def _start_database(self) -> None:
        data = self.folder / "database"
        shutil.rmtree(data, ignore_errors=True)
        common = ("--no-defaults", f"--datadir={data}", "--user=root")
        self.run(program(NEEDED[1]), *common, "--auth-root-authentication-method=normal", "--skip-test-db")
        socket = f"--socket={self.folder}/database.socket"
        log = f"--log-error={self.folder}/log/mariadbd.log"
        where = (f"--port={self._database}", "--bind-address=127.0.0.1", socket, log)
        fast = ("--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M")
        self._spawn("mariadbd", "mariadbd", *common, *where, *fast)
        self.wait(lambda: self.run("mariadb", "--no-defaults", socket, "-e", SQL) == "", STARTUP, "MariaDB")

    def _start_accounting(self) -> None:
        path, host = self.folder / "slurmdbd.conf", self.run("hostname", "-s").strip()
        values = {"folder": self.folder, "host": host, "port": self._accounting, "database": self._database}
        path.write_text(DAEMON.format(**values, password=PASSWORD))
        path.chmod(0o600)
        self._spawn("slurmdbd", "slurmdbd", "-D")
        commands = (
            ("add", "cluster", "tnt"),
            ("add", "account", "lab", "cluster=tnt"),
            ("modify", "qos", "normal", "set", "MaxWall=12:00:00"),
            ("add", "user", "root", "account=lab", "cluster=tnt"),
        )
        for words in commands:
            self.wait(lambda words=words: self._set(*words), STARTUP, f"sacctmgr {' '.join(words)}")

    def _set(self, *words: str) -> bool:
        done = subprocess.run(
            ["sacctmgr", "--immediate", *words], env=self.env, capture_output=True, text=True, timeout=60
        )
        return done.returncode == 0 or "already" in done.stdout or "Nothing" in done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], AccountedCluster))
