//! The PostgreSQL that tests run against.

use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, config::Host};

const HOW: &str = "ALERT_ARCHIVE_DATABASE_URL names no PostgreSQL: `make test` starts one, and so does `make up && \
    eval \"$(make -s env)\"`";

fn url() -> String {
    std::env::var("ALERT_ARCHIVE_DATABASE_URL").expect(HOW)
}

pub async fn connect() -> Client {
    connect_to(&url()).await
}

pub async fn connect_to(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("PostgreSQL");
    tokio::spawn(connection);
    client.batch_execute("SET TimeZone = 'UTC'; SET bytea_output = 'hex'").await.expect("settings");
    client
}

/// The database's owner, as a secret holds it.
pub fn secret() -> String {
    secret_of(&url())
}

pub fn secret_of(url: &str) -> String {
    let config: Config = url.parse().expect("a URL");
    spelled(&config, &String::from_utf8_lossy(config.get_password().expect("a password")))
}

/// The same with another password.
pub fn with_password(password: &str) -> String {
    spelled(&url().parse().expect("a URL"), password)
}

fn spelled(config: &Config, password: &str) -> String {
    let Some(Host::Tcp(host)) = config.get_hosts().first() else { panic!("a host") };
    serde_json::json!({
        "username": config.get_user(), "password": password, "host": host, "port": config.get_ports()[0],
        "dbname": config.get_dbname(), "sslmode": "disable",
    })
    .to_string()
}

pub async fn ask(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    });
    rows.collect()
}

pub async fn execute(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}
