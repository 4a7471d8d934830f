//! Sits between a function and a service, hands everything on, and does harm when it is told to. Each function has
//! a port of its own for each service, so a request tells who asks; the port of the other end tells which process.

use crate::{faults::Fault, http::Http};
use anyhow::{Result, anyhow, bail, ensure};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Method, Request, Response, Uri, body::Frame, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Aws,
    OpenSearch,
}

/// Before the service hears of the request, or after it has answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// SIGKILL to the function's process.
    Kill(When),
    /// The connection ends without an answer.
    Cut(When),
    /// An answer in place of the service's.
    Answer(u16),
    /// DynamoDB refuses the request with this error.
    Refuse(&'static str),
    /// DynamoDB looks up the first half of the keys and leaves the others unprocessed.
    Half,
    /// The request waits, then goes on.
    Delay(Duration),
    /// Half of the answer's bytes, then the connection ends.
    Tear,
    /// OpenSearch answers this, and well.
    Say(&'static str),
    /// OpenSearch forgets every point in time before it hears of the request.
    Forget,
    /// None: the requests are counted.
    Watch,
}

#[derive(Clone)]
pub struct Proxies {
    state: Arc<State>,
}

struct State {
    aws: String,
    opensearch: String,
    http: Http,
    armed: Mutex<Vec<Armed>>,
}

struct Armed {
    fault: Fault,
    matched: u32,
    fired: u32,
    victims: Vec<Arc<Victim>>,
    /// Why the harm could not be done.
    failed: Option<String>,
}

/// One port.
#[derive(Clone)]
struct Door {
    state: Arc<State>,
    function: &'static str,
    service: Service,
    port: u16,
}

impl Proxies {
    pub fn new(aws: &str, opensearch: &str) -> Self {
        let [aws, opensearch] = [aws, opensearch].map(|url| url.trim_end_matches('/').to_owned());
        Proxies { state: Arc::new(State { aws, opensearch, http: Http::default(), armed: Mutex::default() }) }
    }

    /// Opens a function's way to a service; returns its URL.
    pub async fn open(&self, function: &'static str, service: Service) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let door = Door { state: self.state.clone(), function, service, port };
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let door = door.clone();
                tokio::spawn(async move {
                    let serve = service_fn(|request| {
                        let door = door.clone();
                        async move { door.pass(request, peer).await }
                    });
                    // An error here is a cut connection, ours or the function's.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
                });
            }
        });
        Ok(format!("http://127.0.0.1:{port}"))
    }

    /// From now on the fault waits for its request; it replaces those that wait already.
    pub fn arm(&self, fault: Fault) {
        self.arm_all(&[fault]);
    }

    /// A request suffers the first of the faults that it matches, and is counted by all of them.
    pub fn arm_all(&self, faults: &[Fault]) {
        *self.state.armed() = faults
            .iter()
            .map(|fault| Armed { fault: *fault, matched: 0, fired: 0, victims: Vec::new(), failed: None })
            .collect();
    }

    /// How often each of the armed faults has struck so far.
    pub fn fired(&self) -> Vec<u32> {
        self.state.armed().iter().map(|armed| armed.fired).collect()
    }

    /// Ends the faults; returns how often each struck. An error when one should have struck and could not.
    pub fn disarm(&self) -> Result<Vec<u32>> {
        let armed = std::mem::take(&mut *self.state.armed());
        match armed.iter().find_map(|armed| armed.failed.as_deref()) {
            Some(failed) => bail!("the fault could not be done: {failed}"),
            None => Ok(armed.iter().map(|armed| armed.fired).collect()),
        }
    }
}

impl State {
    fn armed(&self) -> MutexGuard<'_, Vec<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this request has to suffer, and which process dies of it.
    fn harm(&self, door: &Door, peer: SocketAddr, request: &Request<Bytes>) -> (Option<Harm>, Option<Arc<Victim>>) {
        let (mut harm, mut dying) = (None, None);
        for armed in self.armed().iter_mut().filter(|armed| armed.fault.function == door.function) {
            if armed.victims.iter().any(|victim| victim.port == door.port && victim.peers.contains(&peer.port())) {
                // A process writes many rows at once: those behind the fatal one must not arrive.
                return (Some(Harm::Cut(When::Before)), None);
            }
            if !armed.fault.point.matches(door.service, request) {
                continue;
            }
            armed.matched += 1;
            if armed.matched < armed.fault.nth || armed.fired >= armed.fault.times {
                continue;
            }
            armed.fired += 1;
            if let Harm::Kill(_) = armed.fault.harm {
                match Victim::at(door, peer) {
                    Ok(Some(victim)) => {
                        let victim = Arc::new(victim);
                        armed.victims.push(victim.clone());
                        dying = Some(victim);
                    }
                    // Opened by a process that has been killed since: its request must not arrive either.
                    Ok(None) if !armed.victims.is_empty() => {
                        armed.fired -= 1;
                        return (Some(Harm::Cut(When::Before)), None);
                    }
                    Ok(None) => {
                        armed.failed = Some(format!("no process holds the connection from port {}", peer.port()))
                    }
                    Err(error) => armed.failed = Some(format!("{error:#}")),
                }
            }
            harm = harm.or(Some(armed.fault.harm).filter(|harm| *harm != Harm::Watch));
        }
        (harm, dying)
    }

    /// Notes that a harm could not be done.
    fn fail(&self, why: String) {
        if let Some(armed) = self.armed().first_mut() {
            armed.failed = Some(why);
        }
    }

    /// Ends the process, as an out-of-memory killer would.
    fn kill(&self, victim: Option<Arc<Victim>>) {
        if let Some(Err(error)) = victim.map(|victim| victim.kill()) {
            self.fail(format!("{error:#}"));
        }
    }
}

impl Door {
    async fn pass(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response<UnsyncBoxBody<Bytes, anyhow::Error>>> {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, body.collect().await?.to_bytes());
        let (harm, victim) = self.state.harm(self, peer, &request);
        match harm {
            Some(Harm::Kill(When::Before)) => {
                self.state.kill(victim);
                bail!("killed before the request")
            }
            Some(Harm::Cut(When::Before)) => bail!("cut before the request"),
            Some(Harm::Answer(status)) => return Ok(Response::builder().status(status).body(whole(Bytes::new()))?),
            Some(Harm::Refuse(error)) => {
                let body = json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{error}"), "message": "refused by the test"}).to_string();
                return Ok(Response::builder()
                    .status(400)
                    .header("content-type", "application/x-amz-json-1.0")
                    .body(whole(body.into()))?);
            }
            Some(Harm::Say(body)) => {
                return Ok(Response::builder().header("content-type", "application/json").body(whole(body.into()))?);
            }
            Some(Harm::Delay(time)) => tokio::time::sleep(time).await,
            Some(Harm::Forget) => {
                let url = format!("{}/_search/point_in_time/_all", self.state.opensearch);
                let (status, body) = self.state.http.send(Method::DELETE, &url, "").await?;
                if !status.is_success() {
                    self.state.fail(format!("points in time stay: {status}: {}", String::from_utf8_lossy(&body)));
                }
            }
            _ => {}
        }
        let asked = request.body().clone();
        let answer = self.forward(request).await?;
        match harm {
            Some(Harm::Kill(When::After)) => {
                self.state.kill(victim);
                bail!("killed after the request")
            }
            Some(Harm::Cut(When::After)) => bail!("cut after the request"),
            Some(Harm::Tear) => Ok(answer.map(torn)),
            Some(Harm::Half) => self.halve(&asked, answer),
            _ => Ok(answer.map(whole)),
        }
    }

    /// The answer to a BatchGetItem as DynamoDB gives it when it got to the first half of the keys only.
    fn halve(&self, asked: &Bytes, answer: Response<Bytes>) -> Result<Response<UnsyncBoxBody<Bytes, anyhow::Error>>> {
        let asked: Value = serde_json::from_slice(asked)?;
        let (mut head, body) = answer.into_parts();
        let mut body: Value = serde_json::from_slice(&body)?;
        let mut left_out = 0;
        for (table, request) in asked["RequestItems"].as_object().into_iter().flatten() {
            let keys = request["Keys"].as_array().map(Vec::as_slice).unwrap_or_default();
            let rest = &keys[keys.len().div_ceil(2)..];
            if rest.is_empty() {
                continue;
            }
            left_out += rest.len();
            let is_left_out = |item: &Value| {
                rest.iter().any(|key| key.as_object().into_iter().flatten().all(|(name, value)| item[name] == *value))
            };
            if let Some(items) = body["Responses"][table].as_array_mut() {
                items.retain(|item| !is_left_out(item));
            }
            let mut request = request.clone();
            request["Keys"] = json!(rest);
            body["UnprocessedKeys"][table] = request;
        }
        if left_out == 0 {
            self.state.fail("the request has no second half".into());
        }
        for header in ["content-length", "x-amz-crc32"] {
            head.headers.remove(header);
        }
        Ok(Response::from_parts(head, whole(body.to_string().into())))
    }

    /// As it came, the Host header too, because it is signed.
    async fn forward(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let upstream = match self.service {
            Service::Aws => &self.state.aws,
            Service::OpenSearch => &self.state.opensearch,
        };
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = Uri::try_from(format!("{upstream}{path}"))?;
        // The whole body is here; the service need not be asked whether it wants it.
        head.headers.remove("expect");
        head.headers.remove("connection");
        let mut answer = self.state.http.call(Request::from_parts(head, Full::new(body))).await?;
        answer.headers_mut().remove("transfer-encoding");
        answer.headers_mut().remove("connection");
        Ok(answer)
    }
}

fn whole(body: Bytes) -> UnsyncBoxBody<Bytes, anyhow::Error> {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

/// The length is announced as it was; hyper ends the connection when the second half does not come.
fn torn(body: Bytes) -> UnsyncBoxBody<Bytes, anyhow::Error> {
    let half = body.slice(..body.len() / 2);
    StreamBody::new(stream::iter([Ok(Frame::data(half)), Err(anyhow!("torn"))])).boxed_unsync()
}

/// The process at the other end of a connection, and its other connections to the same port.
struct Victim {
    pid: u32,
    port: u16,
    peers: HashSet<u16>,
}

impl Victim {
    /// None where no process holds the connection any more.
    fn at(door: &Door, peer: SocketAddr) -> Result<Option<Self>> {
        let table = std::fs::read_to_string("/proc/net/tcp")?;
        let port = |address: &str| address.rsplit(':').next().and_then(|text| u16::from_str_radix(text, 16).ok());
        let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        // The functions' ends of all connections to this port: socket and port.
        let ends: HashMap<String, u16> = rows
            .filter(|row| port(row[2]) == Some(door.port))
            .filter_map(|row| Some((format!("socket:[{}]", row[9]), port(row[1])?)))
            .collect();
        for process in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Processes of others, and those that just ended, cannot be looked into.
            let Ok(handles) = std::fs::read_dir(process.path().join("fd")) else { continue };
            let targets = handles
                .flatten()
                .filter_map(|handle| std::fs::read_link(handle.path()).ok()?.into_os_string().into_string().ok());
            let peers: HashSet<u16> = targets.filter_map(|target| ends.get(&target).copied()).collect();
            if peers.contains(&peer.port()) {
                return Victim { pid, port: door.port, peers }.checked(door.function).map(Some);
            }
        }
        Ok(None)
    }

    /// Never anything but a function's process, whatever the tables say.
    fn checked(self, function: &str) -> Result<Self> {
        let environment = std::fs::read(format!("/proc/{}/environ", self.pid))?;
        let name =
            environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"AWS_LAMBDA_FUNCTION_NAME="));
        let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
        ensure!(name.ends_with(function), "process {} is not {function}, but `{name}`", self.pid);
        Ok(self)
    }

    fn kill(&self) -> Result<()> {
        let pid = self.pid;
        let killed = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
        ensure!(killed.success(), "process {pid} cannot be killed");
        for _ in 0..200 {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("process {pid} outlives its kill")
    }
}
