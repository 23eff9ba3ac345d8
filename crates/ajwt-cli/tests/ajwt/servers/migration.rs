//! docs/migrating-from-python.md: each of its blocks in order, word for word but for ports and the database,
//! with a Django project that uses the Python library. On PostgreSQL and MariaDB steps that change something
//! are taken, taken back, and taken again.

mod databases;
mod library;
#[expect(unreachable_pub, reason = "it is as the page shows it")]
mod service;
#[expect(unreachable_pub, reason = "it is as the page shows it, but for the database")]
mod service_on_mysql;
mod user_model;

use std::path::PathBuf;

use ajwt_core::Validation;
use ajwt_server::Authenticator;
use ajwt_sqlx::Schema;
use ajwt_test_servers::port::free_port;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use self::databases::{with_mysql, with_postgresql, with_sqlite};
use super::{nginx, proxy::Proxy};
use crate::{
    support::{Folder, eventually, project_file},
    walkthrough::{Block, Server, Shell, assert_printed, blocks},
};

const SERVICE: &str = include_str!("migration/service.rs");
const SERVICE_ON_MYSQL: &str = include_str!("migration/service_on_mysql.rs");
const AUDIENCE: &str = "https://reports.shop.example";

/// Which MySQL's usual collations take for billing.
const SPELT_OTHERWISE: [&str; 3] = ["Billing", "b\u{ed}lling", "billing "];

/// The project that the page begins with.
const PROJECT: &str = r#"
python -m django startproject shop .
cat settings >> shop/settings.py
cat > shop/urls.py <<'END'
from django.http import HttpResponse
from django.urls import path


def hello(request):
    if not request.user.is_authenticated:
        return HttpResponse("who is this?\n", status=401)
    return HttpResponse(f"hello, {request.user}\n")


urlpatterns = [path("hello", hello), path("api/hello", hello)]
END
"#;

/// Its tables and callers.
const CALLERS: &str = r#"
python manage.py migrate --verbosity 0
ajwt keygen -o retired.key
ajwt keygen -o warehouse.key
ajwt key show warehouse.key --format jwks > warehouse.jwks
umask 077
python manage.py generate_key_pair > pair.pem
python manage.py shell --verbosity 0 <<'END'
from asymmetric_jwt_auth.keys import Ed25519PrivateKey, PrivateKey, RSAPrivateKey
from asymmetric_jwt_auth.models import JWKSEndpointTrust, PublicKey
from cryptography.hazmat.primitives.asymmetric import rsa
from django.contrib.auth import get_user_model

User = get_user_model()

def add(username, *keys, comment=""):
    user = User.objects.create(username=username)
    for key in keys:
        PublicKey.objects.create(user=user, key=key, comment=comment)
    return user

add("billing", PrivateKey.load_pem_from_file("pair.pem").public_key.as_pem.decode(), comment="production")
small = RSAPrivateKey(rsa.generate_private_key(public_exponent=65537, key_size=1024))
add("legacy", small.public_key.as_pem.decode(), comment="old till")
retired = add("retired", open("retired.key.pub").read())
retired.is_active = False
retired.save()
tills = [Ed25519PrivateKey.generate() for _ in range(34)]
add("tills", *[till.public_key.as_pem.decode() for till in tills])
for number in [2, 3]:
    open(f"till-{number}.pem", "wb").write(tills[number - 1].as_pem)
warehouse = User.objects.create(username="warehouse")
JWKSEndpointTrust.objects.create(user=warehouse, jwks_url="http://10.0.0.7/jwks.json")
User.objects.create_superuser("admin")
END
"#;

/// Django, the gateway, the proxy and services in Rust, as far as they run.
struct Deployment<'a> {
    folder: &'a Folder,
    /// None on SQLite, where the services in Rust are left out.
    services_on: Option<String>,
    shell: Shell<'a>,
    django: Option<Server>,
    gateway: Option<Server>,
    proxy: Option<Proxy>,
    /// What the proxy does with which paths.
    locations: Vec<(String, String)>,
    /// What stands beside them, outside of the server.
    map: String,
    ports: Ports,
    services: Vec<(JoinHandle<()>, Authenticator)>,
    /// What the last commands printed.
    printed: String,
    is_left_out: bool,
}

#[derive(Clone, Copy)]
struct Ports {
    django: u16,
    gateway: u16,
    proxy: u16,
    /// Of the service beside Django.
    beside: u16,
    /// Of the service in Django's place.
    instead: u16,
}

impl<'a> Deployment<'a> {
    /// With commands of its own before there are tables.
    async fn begin(folder: &'a Folder, url: &str, settings: &Value, before_tables: &str) -> Self {
        let [django, gateway, proxy, beside, instead] = std::array::from_fn(|_| free_port());
        let ports = Ports { django, gateway, proxy, beside, instead };
        let python = std::env::var_os("AJWT_PYTHON").expect("AJWT_PYTHON is not set: run ./scripts/test");
        let programs = PathBuf::from(python);
        let mut shell = Shell::new(folder)
            .with_programs(programs.parent().expect("its folder"))
            .with("127.0.0.1:8000", format!("127.0.0.1:{django}"))
            .with("127.0.0.1:4180", format!("127.0.0.1:{gateway}"))
            .with("127.0.0.1:3000", format!("127.0.0.1:{beside}"))
            .with("127.0.0.1:3001", format!("127.0.0.1:{instead}"))
            .with("http://127.0.0.1/", format!("http://127.0.0.1:{proxy}/"))
            // After the others: their ports may begin as one of those does.
            .with("postgres://shop:SECRET@127.0.0.1/shop", url)
            .with("http://10.0.0.7/jwks.json", key_set(folder).await)
            .with_variable("AJWT_LISTEN", &format!("127.0.0.1:{gateway}"))
            // A token must not come late where it must be known as used.
            .with_variable("AJWT_TOLERANCE", "600")
            .with_variable("AJWT_JWKS_INSECURE_HTTP", "true")
            .with_variable("AJWT_JWKS_ALLOW_NETWORK", "127.0.0.0/8");
        // PyMySQL stands in for mysqlclient, which needs a C compiler and headers.
        let driver = if is_mysql(url) { "\nimport pymysql\n\npymysql.install_as_MySQLdb()\n" } else { "" };
        folder.write(
            "settings",
            format!(
                "{driver}\nDEBUG = False\nALLOWED_HOSTS = ['127.0.0.1']\nDATABASES = {{'default': {settings}}}\n\
                 INSTALLED_APPS += ['asymmetric_jwt_auth']\n\
                 MIDDLEWARE += ['asymmetric_jwt_auth.middleware.JWTAuthMiddleware']\n"
            ),
        );
        for script in [PROJECT, before_tables, CALLERS] {
            shell.run(script);
        }
        let whole =
            "location / {\n    proxy_set_header Host $host;\n    proxy_pass http://app;\n}\n".to_owned();
        let mut deployment = Self {
            folder,
            services_on: (!url.starts_with("sqlite")).then(|| url.to_owned()),
            shell,
            django: None,
            gateway: None,
            proxy: None,
            locations: vec![("/".to_owned(), whole)],
            map: String::new(),
            ports,
            services: Vec::new(),
            printed: String::new(),
            is_left_out: false,
        };
        deployment.restart_django();
        deployment.restart_proxy();
        deployment
    }

    fn restart_django(&mut self) {
        self.django = None;
        let run = "python manage.py runserver --noreload 127.0.0.1:8000";
        self.django = Some(self.shell.serve(run, self.ports.django));
    }

    fn restart_proxy(&mut self) {
        let docs = project_file("docs/gateway.md");
        let documented = blocks(&docs).into_iter().find(|block| block.language == "nginx").expect("a block");
        let (before, rest) = documented.text.split_once("    location / {").expect("its location");
        let (_, question) = rest.split_once("    location = /_ajwt").expect("the question");
        let locations: String = self.locations.iter().map(|(_, text)| text.as_str()).collect();
        let map = &self.map;
        let server = format!("{map}{before}{locations}    location = /_ajwt{question}");
        let server = server.replace("listen 80;", &format!("listen 127.0.0.1:{};", self.ports.proxy));
        self.proxy = None;
        let nginx = nginx::command(self.folder, &self.shell.here(&server));
        self.proxy = Some(Proxy::at(self.ports.proxy, self.folder, nginx).expect("its port"));
    }

    /// The location that asks the gateway.
    fn asking(&mut self) -> &mut (String, String) {
        self.locations.iter_mut().find(|(_, text)| text.contains("    auth_request /")).expect("it")
    }

    /// Puts locations in, a map beside them, or one more line into the location that asks.
    fn configure_proxy(&mut self, text: &str) {
        if text.starts_with("map ") {
            text.clone_into(&mut self.map);
        } else if !text.starts_with("location ") {
            let host = "    proxy_set_header Host";
            let (_, asking) = self.asking();
            assert!(asking.contains(host), "{asking}");
            *asking = asking.replacen(host, &format!("    {text}{host}"), 1);
        }
        for location in text.split_inclusive("\n}\n").filter(|text| text.starts_with("location ")) {
            let path = location.split(' ').nth(1).expect("a path").to_owned();
            self.locations.retain(|(other, _)| *other != path);
            self.locations.push((path, location.to_owned()));
        }
        self.restart_proxy();
    }

    async fn start_service(&mut self, call: &str) {
        let Some(url) = &self.services_on else { return };
        // The two calls that the page shows.
        let (port, schema, validation) = if call.contains("Schema::django()") {
            assert!(call.contains(&format!(".with_audience(\"{AUDIENCE}\")")), "{call}");
            let validation = Validation::default().with_audience(AUDIENCE).expect("an audience");
            (self.ports.beside, Schema::django(), validation)
        } else {
            assert!(call.contains("Schema::ajwt(), Validation::default())"), "{call}");
            (self.ports.instead, Schema::ajwt(), Validation::default())
        };
        let service = if is_mysql(url) {
            service_on_mysql::service(url, schema, validation).await
        } else {
            service::service(url, schema, validation).await
        };
        let (router, authenticator) = service.expect("a service");
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("its port");
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        self.services.push((task, authenticator));
    }

    async fn stop_services_but(&mut self, first: usize) {
        for (task, authenticator) in self.services.drain(first..) {
            task.abort();
            let _ = task.await;
            authenticator.close().await;
        }
    }

    /// Takes a step; where the services are, takes it back and takes it again.
    async fn take(&mut self, step: &str) {
        let (forward, back) = step.split_once("**To go back**").expect("a way back");
        let (forward, back) = (blocks(forward), blocks(back));
        if self.services_on.is_none() {
            return self.follow(&forward).await;
        }
        let (locations, services) = (self.locations.clone(), self.services.len());
        let has_gateway = self.gateway.is_some();
        self.follow(&forward).await;
        self.stop_services_but(services).await;
        if self.locations != locations {
            self.locations = locations;
            self.restart_proxy();
        }
        self.follow(&back).await;
        if !has_gateway {
            self.gateway = None;
        }
        let request = "ajwt request GET http://127.0.0.1/api/hello --username billing --key billing.pem";
        assert_eq!(self.shell.run(request), "hello, billing\n", "{step}");
        self.follow(&forward).await;
    }

    async fn follow(&mut self, page: &[Block<'_>]) {
        for block in page {
            self.follow_block(block).await;
        }
    }

    async fn follow_block(&mut self, block: &Block<'_>) {
        let needs_service = block.text.contains("reports") && block.language != "rust,ignore";
        if self.services_on.is_none() && (needs_service || self.is_left_out && block.language == "text") {
            self.is_left_out = true;
            return;
        }
        self.is_left_out = false;
        match block.language {
            "sh" if block.text.contains("ajwt gateway") => {
                self.gateway = None;
                self.gateway = Some(self.shell.serve(block.text, self.ports.gateway));
            }
            "sh" => {
                if block.text.contains("/metrics") {
                    self.wait_for_the_copy().await;
                }
                self.printed = self.shell.run(block.text);
                if block.text.contains("shop/settings.py") {
                    self.restart_django();
                }
            }
            "text" => assert_printed(&self.printed, &self.shell.here(block.text)),
            "python" => self.folder.write(block.name, self.shell.here(block.text)),
            "sql" => {
                self.folder.write("statements.sql", block.text);
                self.shell.run(
                    "python manage.py shell --verbosity 0 <<'END'\n\
                     from django.db import connection\n\
                     for statement in open('statements.sql').read().split(';'):\n    \
                     statement.strip() and connection.cursor().execute(statement)\n\nEND\n",
                );
            }
            // For whoever has them: by `sessions_and_tokens_share_a_path`.
            "nginx" if block.name == "sessions" => {}
            "nginx" => self.configure_proxy(block.text),
            "rust" => {
                assert_eq!(block.text, SERVICE, "another service");
                assert_eq!(SERVICE.replace("Postgres", "MySql"), SERVICE_ON_MYSQL, "another one on MySQL");
            }
            "rust,ignore" => self.start_service(block.text).await,
            "toml" => {
                let used = SERVICE.lines().filter_map(|line| line.strip_prefix("use ")?.split_once("::"));
                for (name, _) in used.filter(|(name, _)| *name != "std") {
                    let due = format!("{} = ", name.replace('_', "-"));
                    assert!(block.text.lines().any(|line| line.starts_with(&due)), "{due}");
                }
            }
            other => panic!("a block of {other}"),
        }
    }

    /// nginx does not wait for the answer to the copy of a request.
    async fn wait_for_the_copy(&self) {
        let url = format!("http://127.0.0.1:{}/metrics", self.ports.gateway);
        eventually("copy", async || {
            let answer = crate::support::client().get(&url).send().await.expect("an answer");
            let text = answer.text().await.expect("text");
            text.lines().any(|line| line.starts_with("ajwt_authentications_total{") && !line.ends_with(" 0"))
        })
        .await;
    }

    /// What curl prints with these arguments, the status last.
    fn answer(&mut self, path: &str, arguments: &str) -> String {
        self.shell.run(&format!("curl -s -w '%{{http_code}}' {arguments} http://127.0.0.1{path}"))
    }

    /// The status of a request that takes this header through the proxy.
    fn status(&mut self, path: &str, header: &str) -> String {
        self.shell
            .run(&format!("curl -s -o /dev/null -w '%{{http_code}}' -H '{header}' http://127.0.0.1{path}"))
    }

    fn token(&mut self, caller: &str, key: &str) -> String {
        self.shell
            .run(&format!("ajwt token --username '{caller}' --key {key} --header"))
            .trim_end()
            .to_owned()
    }
}

fn is_mysql(url: &str) -> bool {
    url.starts_with("mysql:")
}

/// Where the key set of the caller `warehouse` is.
async fn key_set(folder: &Folder) -> String {
    let path = folder.path("warehouse.jwks");
    let set = move || async move { std::fs::read_to_string(path).expect("the set") };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/jwks.json", listener.local_addr().expect("its address"));
    let router = axum::Router::new().route("/jwks.json", axum::routing::get(set));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// The page's sections: those before its steps, the steps, and those after them.
fn sections(page: &str) -> (Vec<&str>, [&str; 6], Vec<&str>) {
    let sections: Vec<&str> = page.split("\n## ").collect();
    let is_step = |section: &&str| section.starts_with("Step ");
    let (before, rest) = sections.split_at(sections.iter().position(is_step).expect("steps"));
    let (steps, after) = rest.split_first_chunk::<6>().expect("six steps");
    assert!(steps.iter().all(is_step) && !after.iter().any(is_step), "six steps are due");
    (before.to_vec(), *steps, after.to_vec())
}

async fn every_step_works(folder: &Folder, url: &str, settings: &Value) {
    let page = project_file("docs/migrating-from-python.md");
    let (before, [look, beside, ask, believe, own_tables, instead], after) = sections(&page);
    let mut deployment = Deployment::begin(folder, url, settings, "").await;
    for section in before {
        deployment.follow(&blocks(section)).await;
    }
    deployment.follow(&blocks(look)).await;
    // What the page says besides, of which its commands show nothing.
    let found_by_django = if is_mysql(url) { "200" } else { "401" };
    for name in SPELT_OTHERWISE {
        let token = deployment.token(name, "billing.pem");
        assert_eq!(deployment.status("/api/hello", &token), found_by_django, "{name}");
    }
    deployment.take(beside).await;
    let listed = deployment.shell.run("ajwt key list billing --json");
    assert!(listed.contains("\"created_at\": null"), "Django's tables do not say: {listed}");
    deployment.take(ask).await;
    for name in SPELT_OTHERWISE {
        let token = deployment.token(name, "billing.pem");
        assert_eq!(deployment.status("/api/hello", &token), "401", "{name}");
    }
    let counted = deployment.shell.run("curl -s http://127.0.0.1:4180/metrics");
    let unknown = format!("reason=\"unknown_user\"}} {}\n", SPELT_OTHERWISE.len());
    assert!(counted.contains(&unknown), "{counted}");
    assert_eq!(deployment.status("/hello", "X-Ajwt-Username: billing"), "401", "it is no caller's path");
    deployment.take(believe).await;
    let used = deployment.token("warehouse", "warehouse.key");
    assert_eq!(deployment.status("/api/hello", &used), "200", "a key of a trusted URL");
    for (caller, key) in [("legacy", "billing.pem"), ("retired", "retired.key"), ("tills", "till-2.pem")] {
        let token = deployment.token(caller, key);
        assert_eq!(deployment.status("/api/hello", &token), "401", "{caller}");
    }
    sessions_and_tokens_share_a_path(&mut deployment, ask);
    deployment.shell.run("ajwt keygen -o other.key\najwt key add warehouse other.key.pub\n");
    deployment.take(own_tables).await;
    assert_eq!(deployment.status("/api/hello", &used), "401", "used before the tables were others");
    let token = deployment.token("warehouse", "warehouse.key");
    assert_eq!(deployment.status("/api/hello", &token), "200", "the trusted URL was moved");
    let token = deployment.token("retired", "retired.key");
    assert_eq!(deployment.status("/api/hello", &token), "401", "it was moved as not active");
    for (key, status) in [("till-2.pem", "401"), ("till-3.pem", "200")] {
        let token = deployment.token("tills", key);
        assert_eq!(deployment.status("/api/hello", &token), status, "the 32 newest were moved: {key}");
    }
    what_was_ended_stays_so(&mut deployment, own_tables).await;
    // Callers of ajwt's alone, as those are whose names Django's database takes for another's.
    for name in SPELT_OTHERWISE.into_iter().chain(["nobody"]) {
        deployment.shell.run(&format!("ajwt user add '{name}'\najwt key add '{name}' other.key.pub\n"));
        let token = deployment.token(name, "other.key");
        assert_eq!(deployment.status("/api/hello", &token), "403", "{name}");
    }
    deployment.take(instead).await;
    for section in after {
        deployment.follow(&blocks(section)).await;
    }
    deployment.stop_services_but(0).await;
}

/// Once Django believes the gateway, and with what the page has for people with sessions.
fn sessions_and_tokens_share_a_path(deployment: &mut Deployment<'_>, ask: &str) {
    let locations = deployment.locations.clone();
    let (path, asking) = deployment.asking();
    "@callers".clone_into(path);
    *asking = asking.replacen("location /api/ ", "location @callers ", 1);
    for block in blocks(ask).iter().filter(|block| block.name == "sessions") {
        deployment.configure_proxy(block.text);
    }
    let session = deployment.shell.run(
        "python manage.py shell --verbosity 0 <<'END'\n\
         from django.contrib.auth.models import User\n\
         from django.test import Client\n\
         client = Client()\n\
         client.force_login(User.objects.get(username='admin'))\n\
         print('Cookie: sessionid=' + client.cookies['sessionid'].value)\nEND\n",
    );
    let session = format!("-H '{}'", session.trim_end());
    let [first, second, third] =
        std::array::from_fn(|_| format!("-H '{}'", deployment.token("billing", "billing.pem")));
    let name = "-H 'X-Ajwt-Username: billing' -H 'X_Ajwt_Username: billing'";
    let (admin, billing, nobody) = ("hello, admin\n200", "hello, billing\n200", "who is this?\n401");
    for (arguments, due) in [
        (session.clone(), admin),
        (String::new(), nobody),
        (name.to_owned(), nobody),
        (format!("{session} {name}"), admin),
        (format!("{session} -H 'Authorization: Bearer a'"), admin),
        (first.clone(), billing),
        (format!("{session} {second}"), billing),
        (format!("{third} -H 'X-Ajwt-Username: admin' -d a=b"), billing),
    ] {
        assert_eq!(deployment.answer("/api/hello", &arguments), due, "{arguments}");
    }
    for arguments in [
        format!("{session} {first}"),
        format!("{session} {name} -H 'Authorization: JWT nonsense'"),
        format!("{session} -H 'Authorization: jwt'"),
    ] {
        let answer = deployment.answer("/api/hello", &arguments);
        assert!(answer.ends_with("401") && !answer.contains("who is this"), "{arguments}: {answer}");
    }
    let forged = deployment.answer("/api/hello", &format!("{session} -d a=b"));
    assert!(forged.ends_with("403"), "a form without Django's token for it: {forged}");
    deployment.locations = locations;
    deployment.map.clear();
    deployment.restart_proxy();
}

/// What `ajwt` ends after the copy is listed on the way back and, ended in Django as the page says, good nowhere.
async fn what_was_ended_stays_so(deployment: &mut Deployment<'_>, step: &str) {
    let (forward, back) = step.split_once("**To go back**").expect("a way back");
    let (forward, back) = (blocks(forward), blocks(back));
    let [list, start] = back.as_slice() else { panic!("a list and a start are due") };
    deployment.shell.run(
        "id=$(ajwt key list warehouse --json | python -c 'import json, sys; print(json.load(sys.stdin)[0][\"id\"])')\n\
         ajwt key revoke warehouse $id\n\
         ajwt trust remove warehouse http://10.0.0.7/jwks.json\n\
         ajwt user disable tills\n",
    );
    deployment.follow(&[*list]).await;
    for (action, user) in
        [("revoke_key", "warehouse"), ("remove_trust", "warehouse"), ("deactivate_user", "tills")]
    {
        let is_listed = |line: &str| line.contains(action) && line.contains(user);
        assert!(deployment.printed.lines().any(is_listed), "{action}: {}", deployment.printed);
    }
    deployment.shell.run(
        "python manage.py shell --verbosity 0 <<'END'\n\
         from asymmetric_jwt_auth.models import JWKSEndpointTrust, PublicKey\n\
         PublicKey.objects.filter(user__username__in=['warehouse', 'tills']).delete()\n\
         JWKSEndpointTrust.objects.filter(user__username='warehouse').delete()\nEND\n",
    );
    let ended = [("warehouse", "other.key"), ("warehouse", "warehouse.key"), ("tills", "till-3.pem")];
    let gateway = forward.iter().find(|block| block.text.contains("ajwt gateway")).expect("a gateway");
    for is_back in [true, false] {
        if is_back {
            deployment.follow(&[*start]).await;
        } else {
            deployment.shell.run("export AJWT_SCHEMA=ajwt\n");
            deployment.follow(&[*gateway]).await;
        }
        for (caller, key) in ended {
            let token = deployment.token(caller, key);
            assert_eq!(deployment.status("/api/hello", &token), "401", "{caller} {key}, back: {is_back}");
        }
        let token = deployment.token("billing", "billing.pem");
        assert_eq!(deployment.status("/api/hello", &token), "200", "back: {is_back}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    with_sqlite(every_step_works).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql() {
    with_postgresql(every_step_works).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mysql() {
    with_mysql(every_step_works).await;
}
