//! A PostgreSQL of a test's own: for what would be in the way of other tests, and for what only its superuser may do.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

pub const PASSWORD: &str = "a-test-of-its-own";

pub struct Server {
    programs: PathBuf,
    folder: TempDir,
    pub port: u16,
}

impl Server {
    pub fn start() -> Server {
        let server = Server::made();
        server.run(&[]);
        server
    }

    /// One that is for ever about to follow a primary.
    pub fn replica() -> Server {
        let server = Server::made();
        std::fs::write(server.data().join("standby.signal"), "").expect("a signal");
        server.run(&["restore_command=false"]);
        server
    }

    /// One that speaks TLS, with a certificate of an authority of its own.
    pub fn with_tls() -> Server {
        let server = Server::made();
        let folder = server.folder.path();
        std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1").expect("names");
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout"];
        let openssl = |arguments: &[&str]| {
            let mut openssl = Command::new("openssl");
            done(openssl.args(arguments).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()));
        };
        let request = [&["req"], &key[..]].concat();
        openssl(
            &[&request, &["authority.key", "-x509", "-out", "authority.pem", "-subj", "/CN=authority"][..]].concat(),
        );
        openssl(&[&request, &["server.key", "-out", "server.csr", "-subj", "/CN=server"][..]].concat());
        let sign = ["x509", "-req", "-in", "server.csr", "-CA", "authority.pem", "-CAkey", "authority.key"];
        openssl(&[&sign, &["-CAcreateserial", "-extfile", "names", "-out", "server.pem"][..]].concat());
        let file = |name: &str| folder.join(name).display().to_string();
        let (certificate, key) = (file("server.pem"), file("server.key"));
        server.run(&["ssl=on", &format!("ssl_cert_file={certificate}"), &format!("ssl_key_file={key}")]);
        server
    }

    /// The certificate of its authority.
    pub fn authority(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("authority.pem")).expect("a certificate")
    }

    fn made() -> Server {
        let folder = TempDir::new().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let server = Server { programs: programs(), folder, port };
        let password = server.folder.path().join("password");
        std::fs::write(&password, PASSWORD).expect("a password");
        let mut initdb = server.program("initdb");
        initdb.args([
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "--pwfile",
        ]);
        done(initdb.arg(password).arg("-D").arg(server.data()));
        server
    }

    fn run(&self, settings: &[&str]) {
        let own =
            ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_prepared_transactions=2", "fsync=off"];
        let options: String = own.iter().chain(settings).map(|setting| format!("-c {setting} ")).collect();
        let mut start = self.program("pg_ctl");
        start
            .args(["start", "--wait", "--silent", "-o", &format!("-p {} {options}", self.port), "-D"])
            .arg(self.data());
        done(start.arg("-l").arg(self.folder.path().join("log")));
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// PostgreSQL refuses to run as root: a user namespace that maps root to another user needs no second account.
    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let is_root = std::fs::metadata(self.folder.path()).is_ok_and(|folder| {
            use std::os::unix::fs::MetadataExt;
            folder.uid() == 0
        });
        let mut command = Command::new(if is_root { Path::new("unshare") } else { &program });
        if is_root {
            command.args(["--user", "--map-user=1000", "--map-group=1000"]).arg(&program);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// The superuser's, or that of another role with the same password.
    pub fn url(&self, role: &str) -> String {
        format!("postgresql://{role}:{PASSWORD}@127.0.0.1:{}/postgres", self.port)
    }

    /// What makes such a role.
    pub fn role(name: &str) -> String {
        format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'; GRANT pg_read_all_stats TO {name}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stop = ["stop", "--mode=immediate", "--silent", "-D"];
        if let Err(error) = self.program("pg_ctl").args(stop).arg(self.data()).status() {
            eprintln!("PostgreSQL was not stopped: {error}");
        }
    }
}

/// The newest folder with PostgreSQL's programs; Debian keeps the server's out of PATH.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.extend(std::env::split_paths(&path));
    folders.into_iter().rev().find(|folder| folder.join("initdb").exists()).expect("PostgreSQL's programs")
}

fn done(command: &mut Command) {
    assert!(command.status().expect("a program").success(), "{command:?}");
}
