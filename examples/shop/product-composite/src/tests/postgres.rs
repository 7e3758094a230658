//! A real PostgreSQL server of the test's own, on loopback, gone with the test.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};

/// How long the server may take to start. Generous: the machine may be busy.
const START_MAX: Duration = Duration::from_secs(60);

pub(super) struct Postgres {
    server: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Postgres {
    /// Starts a server with an empty database for each name.
    pub(super) async fn start(databases: &[&str]) -> Self {
        let programs = programs();
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let owner = owner(folder.path());
        let command = |name: &str| {
            let mut command = Command::new(programs.join(name));
            command.current_dir(folder.path()).stdin(Stdio::null());
            if let Some((user, group)) = owner {
                command.uid(user).gid(group);
            }
            command
        };
        let data = folder.path().join("data");
        let made = command("initdb")
            .args(["--username=shop", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));

        let port = free_port();
        let log = std::fs::File::create(folder.path().join("log")).expect("the temporary folder is writable");
        let server = command("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-F", "-k"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres runs");
        let postgres = Self { server, port, _folder: folder };
        for database in databases {
            postgres.make(database).await;
        }
        postgres
    }

    /// Makes a database, as soon as the server answers.
    async fn make(&self, database: &str) {
        sqlx::any::install_default_drivers();
        let end = Instant::now() + START_MAX;
        let mut connection = loop {
            match AnyConnection::connect(&self.url("postgres")).await {
                Ok(connection) => break connection,
                Err(error) => {
                    assert!(Instant::now() < end, "PostgreSQL did not answer within {START_MAX:?}: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        let made = connection.execute(AssertSqlSafe(format!("CREATE DATABASE {database}"))).await;
        made.expect("PostgreSQL makes databases");
    }

    pub(super) fn url(&self, database: &str) -> String {
        format!("postgres://shop@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let id = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw);
        if let Some(id) = id {
            // QUIT ends the server and all of its processes at once; there is nothing to keep.
            let _ = kill_process(id, Signal::QUIT);
        }
        let _ = self.server.wait();
    }
}

/// Where Debian keeps the server's programs, or the path has them.
fn programs() -> PathBuf {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).collect::<Vec<_>>();
    let of_debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let of_debian = of_debian.map(|version| version.path().join("bin"));
    let found = on_path.into_iter().chain(of_debian).find(|folder| folder.join("initdb").exists());
    found.expect("no PostgreSQL server on this machine: install postgresql or run ./check")
}

/// PostgreSQL does not run as root: then the folder, and the server, belong to Debian's user for it.
fn owner(folder: &Path) -> Option<(u32, u32)> {
    let own = std::fs::metadata(folder).expect("the folder is there").uid();
    if own != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("the system has users");
    let user = users.lines().find_map(|line| line.strip_prefix("postgres:"));
    let mut fields = user.expect("no user postgres on this machine: install postgresql or run ./check").split(':');
    let mut number = || fields.next().and_then(|field| field.parse::<u32>().ok());
    let _password = number();
    let (user, group) = number().zip(number()).expect("a line of /etc/passwd has numbers");
    chown(folder, Some(user), Some(group)).expect("root may give a folder away");
    Some((user, group))
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound").port()
}
