//! What the gateway is told to do, in which way, and what it says of a configuration that is wrong.

use std::{fs::File, time::Duration};

use ajwt_server::{Clock as _, SystemClock};

use super::{SQL, service};
use crate::support::{Folder, Gateway, authorization_ahead, eventually};

#[tokio::test]
async fn memory_has_room_for_as_many_nonces_as_is_said() {
    let folder = service();
    let words = "--database-url sqlite://ajwt.db --nonce memory --memory-capacity 2";
    let gateway = Gateway::start(&folder, words);
    for status in [200, 200, 503, 503] {
        assert_eq!(gateway.status(&folder.authorization()).await, status);
    }
    // It answers all the same.
    assert_eq!(gateway.text("/readyz").await, "not ready: the nonce store is full\n");
    assert!(gateway.text("/metrics").await.contains("ajwt_nonce_store_up 1\n"));
}

#[tokio::test]
async fn memory_may_be_strict_after_a_start() {
    let folder = service();
    // Not 1: tokens are dated in whole seconds, and one of a second's end would be too old at once.
    let words = "--database-url sqlite://ajwt.db --nonce memory --memory-strict-start --tolerance 3";
    let gateway = Gateway::start(&folder, words);
    // Of the tolerance and 5 s.
    assert_eq!(gateway.status(&folder.authorization()).await, 503);
    eventually("acceptance", async || gateway.status(&folder.authorization()).await == 200).await;
}

/// Of servers whose clocks are a minute apart, another one may have accepted what is dated so far ahead.
#[tokio::test]
async fn a_store_that_has_forgotten_waits_for_the_clocks_of_other_servers() {
    // Its nonces are not marked as new: they may have been emptied.
    let folder = Folder::with_database();
    let memory = "--database-url sqlite://ajwt.db --nonce memory --memory-strict-start --server-skew 60";
    let in_memory = Gateway::start(&folder, memory);
    let in_table = Gateway::start(&folder, &format!("{SQL} --server-skew 60"));
    let by_default = Gateway::start(&folder, SQL);
    for gateway in [&in_memory, &in_table, &by_default] {
        assert_eq!(gateway.status(&authorization_ahead(&folder, 19)).await, 503);
    }
    let accepts = async || by_default.status(&authorization_ahead(&folder, 19)).await == 200;
    eventually("acceptance", accepts).await;
    for gateway in [&in_memory, &in_table] {
        assert_eq!(gateway.status(&authorization_ahead(&folder, 19)).await, 503);
    }
}

#[tokio::test]
async fn refusals_may_be_held_back() {
    let folder = service();
    let gateway = Gateway::start(&folder, &format!("{SQL} --refusal-quantum 100"));
    let clock = SystemClock::new();
    assert_eq!(gateway.status("JWT nonsense").await, 401);
    assert!(clock.monotonic() >= Duration::from_millis(100), "{:?}", clock.monotonic());
    assert_eq!(gateway.status(&folder.authorization()).await, 200);
}

#[tokio::test]
async fn options_come_from_the_file_then_variables_then_the_command_line() {
    let folder = service();
    folder.write(
        "gateway.toml",
        "database-url = \"sqlite://ajwt.db\"\nnonce = \"sql\"\naudience = [\"orders\", \"invoices\"]\n\
         allow-missing-audience = false\ntolerance = 60\nlog-level = \"debug\"\nlisten = \"192.0.2.1:1\"\n",
    );
    let token = |audience: &str| {
        let token = folder.good(&format!("token --username billing --key billing.key --audience {audience}"));
        format!("JWT {}", token.trim_end())
    };
    // The address of the file cannot be listened on: the command line's counts.
    let gateway = Gateway::start(&folder, "--config gateway.toml");
    for (audience, status) in [("orders", 200), ("invoices", 200), ("others", 401)] {
        assert_eq!(gateway.status(&token(audience)).await, status, "{audience}");
    }
    assert_eq!(gateway.status(&folder.authorization()).await, 401, "it names no audience");
    assert!(gateway.log().contains("DEBUG"), "{}", gateway.log());
    drop(gateway);

    let mut command = folder.command(crate::support::AJWT);
    command.args(["gateway", "--audience", "orders"]).env("AJWT_CONFIG", "gateway.toml");
    command.env("AJWT_LISTEN", "127.0.0.1:0").env("AJWT_LOG_LEVEL", "warn");
    let gateway = Gateway::of(&mut command, &folder);
    assert_eq!(gateway.status(&token("orders")).await, 200);
    assert_eq!(
        gateway.status(&token("invoices")).await,
        401,
        "the command line's list takes the place of the file's"
    );
    assert!(!gateway.log().contains("DEBUG"), "{}", gateway.log());
}

#[tokio::test]
async fn a_token_without_an_audience_passes_where_that_is_allowed() {
    const FLAG: &str = "--allow-missing-audience";
    let folder = service();
    let of_another = folder.good("token --username billing --key billing.key --audience others");
    let of_another = format!("JWT {}", of_another.trim_end());
    for (in_file, variable, flag, status) in [
        (false, None, None, 401),
        (true, None, None, 200),
        (true, Some("false"), None, 401),
        (false, Some("true"), None, 200),
        (false, Some("false"), Some(FLAG), 200),
    ] {
        folder.write(
            "gateway.toml",
            format!(
                "database-url = \"sqlite://ajwt.db\"\nnonce = \"sql\"\naudience = \"orders\"\n\
                 allow-missing-audience = {in_file}\n"
            ),
        );
        let mut command = folder.command(crate::support::AJWT);
        command.args(["gateway", "--listen", "127.0.0.1:0", "--config", "gateway.toml"]).args(flag);
        command.envs(variable.map(|value| ("AJWT_ALLOW_MISSING_AUDIENCE", value)));
        let gateway = Gateway::of(&mut command, &folder);
        let given = format!("file {in_file}, variable {variable:?}, command line {flag:?}");
        assert_eq!(gateway.status(&folder.authorization()).await, status, "{given}");
        assert_eq!(gateway.status(&of_another).await, 401, "{given}");
    }
}

#[test]
fn a_configuration_that_is_wrong_is_told() {
    let folder = service();
    for (text, told) in [
        ("nonces = 1", "the configuration a.toml: \"nonces\" is no option; ajwt gateway --help lists them"),
        ("config = \"b.toml\"", "the configuration a.toml: \"config\" is no option"),
        ("nonce = 1.5", "the configuration a.toml: nonce: a text, a number, true or false is due"),
        ("[nonce]", "the configuration a.toml: nonce: a text, a number, true or false is due"),
        ("audience = []", "the configuration a.toml: audience is empty: give it a value, or leave it out"),
        ("audience = [[]]", "the configuration a.toml: audience is empty: give it a value, or leave it out"),
        ("nonce", "the configuration a.toml: line 1 is no TOML: "),
        (
            "nonce = \"sql\"\n\ndatabase-url = \"mysql://u:secret@db/a",
            "the configuration a.toml: line 3 is no TOML: ",
        ),
        ("nonce = sec\"ret\"secret", "the configuration a.toml: line 1 is no TOML: "),
        ("database-url = 'secret\nnonce = 1", "the configuration a.toml: line 1 is no TOML: "),
        ("redis-cluster = 1", "the configuration a.toml: redis-cluster: true or false is due"),
        ("redis-cluster = \"secret\"", "the configuration a.toml: redis-cluster: true or false is due"),
        (
            "tolerance = \"long\"",
            "the configuration a.toml: invalid value 'long' for '--tolerance <SECONDS>': ",
        ),
        ("tolerance = -1", "the configuration a.toml: invalid value '-1' for '--tolerance <SECONDS>': "),
        (
            "schema = \"rails\"",
            "the configuration a.toml: invalid value 'rails' for '--schema <SCHEMA>' [possible values: ajwt, django]",
        ),
    ] {
        folder.write("a.toml", text);
        let found = folder.bad("gateway --config a.toml");
        assert!(found.starts_with(told), "{text}: {found}");
        // The rest of a line is not told: it may be a password.
        assert!(!found.contains("secret"), "{found}");
    }
    let ran = folder.ajwt(&["gateway", "--config", "a.toml", "--tolerance", "long"]);
    assert!(ran.code == Some(2) && ran.err.contains("'long' for '--tolerance <SECONDS>'"), "{ran:?}");

    folder.write("spaced.toml", "audience = \"orders, invoices\"");
    folder.write("empty.json", "{\"keys\":[]}");
    folder.write("unusable.json", "{\"keys\":[{\"kty\":\"EC\"}]}");
    // Where it cannot listen, so that it ends in any case.
    let publish = format!("{SQL} --listen 192.0.2.1:1 --publish-key");
    for (words, told) in [
        ("--config nothing", "nothing cannot be read: No such file or directory (os error 2)"),
        ("--keys nothing --nonce memory", "the folder of keys nothing cannot be read"),
        (
            "--keys . --nonce sql",
            "--nonce sql needs a database, and --keys has none: give --nonce memory or redis://HOST, or \
             --database-url in place of --keys",
        ),
        (
            &format!("{SQL} --memory-capacity 5"),
            "--memory-capacity and --memory-strict-start are for --nonce memory",
        ),
        (
            &format!("{SQL} --memory-strict-start"),
            "--memory-capacity and --memory-strict-start are for --nonce memory",
        ),
        (
            "--keys . --nonce memory --server-skew 5",
            "--server-skew has no effect with --nonce memory unless --memory-strict-start is given, too",
        ),
        ("--nonce memory", "no users: give --database-url or --keys, or set AJWT_DATABASE_URL or AJWT_KEYS"),
        ("--database-url sqlite://ajwt.db", "no nonce store: give --nonce or set AJWT_NONCE"),
        (
            &format!("{SQL} --listen 192.0.2.1:1 --config spaced.toml"),
            "the audience \" invoices\" begins or ends with a space: write a list as in orders,invoices",
        ),
        (&format!("{SQL} --tolerance 0"), "a tolerance of 0ns is not usable; 1s to 3600s are"),
        (
            &format!("{SQL} --refusal-quantum 1001"),
            "a refusal quantum of 1.001s is not usable; zero and 1ms to 1s are",
        ),
        (&format!("{SQL} --publish-key nothing"), "nothing cannot be read"),
        (&format!("{publish} empty.json"), "empty.json holds no usable key: the key set is empty"),
        (
            &format!("{publish} unusable.json"),
            "unusable.json holds no usable key: none of the set's keys is usable; the first: keys with kty",
        ),
        (&format!("{SQL} --scheme a/b"), "\"a/b\" is no authentication scheme"),
        (&format!("{SQL} --listen 192.0.2.1:1"), "cannot listen on 192.0.2.1:1"),
    ] {
        let found = folder.bad(&format!("gateway {words}"));
        assert!(found.starts_with(told), "{words}: {found}");
    }
}

/// It can be read once, and both keys need it.
#[tokio::test]
async fn several_keys_have_their_passphrase_from_standard_input() {
    let folder = service();
    folder.write_secret("passphrase", "correct horse");
    for name in ["one.key", "two.key"] {
        folder.good(&format!("keygen -o {name} --passphrase-file passphrase"));
    }
    let mut command = folder.command(crate::support::AJWT);
    command.args(["gateway", "--listen", "127.0.0.1:0", "--publish-key", "one.key,two.key"]);
    command.args(["--passphrase-file", "-"]).args(SQL.split(' '));
    command.stdin(File::open(folder.path("passphrase")).expect("opened"));
    let gateway = Gateway::of(&mut command, &folder);
    folder.write("jwks", gateway.text("/.well-known/jwks.json").await);
    let keys = [folder.read("one.key.pub"), folder.read("two.key.pub")].concat();
    assert_eq!(folder.good("key show jwks"), keys);
}

/// As `${NAME:-}` makes it in a compose file: what was to have an audience must not start without.
#[tokio::test]
async fn an_empty_variable_is_told_by_its_name() {
    let folder = service();
    folder.write("gateway.toml", "audience = \"orders\"\n");
    let gateway = |variables: &[&str], words: &str| {
        let mut command = folder.command(crate::support::AJWT);
        command.args(["gateway", "--listen", "192.0.2.1:1"]).args(SQL.split(' ')).args(words.split(' '));
        command.envs(variables.iter().map(|variable| (*variable, "")));
        let output = command.output().expect("run");
        assert_eq!(output.status.code(), Some(1), "{variables:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    for variable in [
        "AJWT_ALLOW_MISSING_AUDIENCE",
        "AJWT_AUDIENCE",
        "AJWT_CONFIG",
        "AJWT_IDLE_TIMEOUT",
        "AJWT_JWKS_ALLOW_NETWORK",
        "AJWT_KEYS",
        "AJWT_MEMORY_STRICT_START",
        "AJWT_REDIS_CA",
        "AJWT_REDIS_SENTINEL",
        "AJWT_TOLERANCE",
    ] {
        let told = format!("ajwt: {variable} is empty: give it a value, or unset it\n");
        assert_eq!(gateway(&[variable], "--log-level info"), told);
    }
    let told = gateway(&["AJWT_AUDIENCE"], "--config gateway.toml");
    assert!(told.contains("AJWT_AUDIENCE is empty"), "the file does not speak for it: {told}");
    // What the command line says needs no variable, and what others read is nothing to this command.
    let told = gateway(&["AJWT_CONFIG", "AJWT_KEY"], "--config gateway.toml");
    assert!(told.contains("cannot listen on 192.0.2.1:1"), "{told}");
}

/// It is told once, and starts all the same: a folder may hide the file.
#[test]
fn a_configuration_with_a_password_that_everybody_may_read_is_told() {
    let folder = Folder::new();
    let warning = |mode| {
        format!(
            "ajwt: the configuration a.toml holds a password and has mode {mode}, so everybody on this host can read it: \
             chmod o-r a.toml\n"
        )
    };
    for (nonce, mode, warning) in [
        ("redis://:geheim@h", 0o644, warning("0644")),
        ("redis://h1,redis://u:geheim@h2", 0o604, warning("0604")),
        ("redis://:geheim@h", 0o640, String::new()),
        ("redis://h", 0o644, String::new()),
    ] {
        // A folder that is not there, so that it ends in any case.
        folder.write("a.toml", format!("nonce = \"{nonce}\"\nkeys = \"nothing\"\n"));
        folder.set_mode("a.toml", mode);
        let ran = folder.ajwt(&["gateway", "--config", "a.toml"]);
        let rest = ran.err.strip_prefix(&warning).unwrap_or_else(|| panic!("{ran:?}"));
        assert!(rest.starts_with("ajwt: the folder of keys nothing cannot be read"), "{ran:?}");
        assert!(!ran.err.contains("geheim"), "{ran:?}");
    }
}

/// They would be ignored, and nonces be kept where nobody believes them to be.
#[test]
fn options_of_redis_are_refused_without_it() {
    let folder = service();
    // Where it cannot listen, so that it ends in any case.
    let gateway = format!("gateway --listen 192.0.2.1:1 {SQL}");
    let told = |options: &str, variables: &str| {
        format!(
            "--nonce names no Redis server, which alone takes {options}: remove it from the command line, the \
             variables ({variables}) or the file of --config"
        )
    };
    for (name, value, variable) in [
        ("--redis-prefix", " a", "AJWT_REDIS_PREFIX"),
        ("--redis-sentinel", " redis://s", "AJWT_REDIS_SENTINEL"),
        ("--redis-cluster", "", "AJWT_REDIS_CLUSTER"),
        ("--redis-wait-for-replicas", " 0", "AJWT_REDIS_WAIT_FOR_REPLICAS"),
        ("--redis-trust-persistence", "", "AJWT_REDIS_TRUST_PERSISTENCE"),
        ("--redis-ca", " ca.pem", "AJWT_REDIS_CA"),
    ] {
        assert_eq!(folder.bad(&format!("{gateway} {name}{value}")), told(name, variable));
        let init = format!("nonce init {SQL} {name}{value}");
        assert_eq!(folder.bad(&init), told(name, variable));
    }
    let memory = "--listen 192.0.2.1:1 --database-url sqlite://ajwt.db --nonce memory";
    folder.write("gateway.toml", "redis-prefix = \"orders\"\nredis-cluster = true\n");
    assert_eq!(
        folder.bad(&format!("gateway --config gateway.toml {memory}")),
        told("--redis-prefix, --redis-cluster", "AJWT_REDIS_PREFIX, AJWT_REDIS_CLUSTER")
    );
    let with_variables = |cluster: &str| {
        let mut command = folder.command(crate::support::AJWT);
        command.args(gateway.split(' ')).env("AJWT_REDIS_CLUSTER", cluster);
        String::from_utf8(command.output().expect("it runs").stderr).expect("text")
    };
    let refused = with_variables("true");
    assert!(refused.contains(&told("--redis-cluster", "AJWT_REDIS_CLUSTER")), "{refused}");
    let not_given = with_variables("false");
    assert!(not_given.contains("cannot listen on 192.0.2.1:1"), "{not_given}");
}

/// A variable that takes a flag back, as a chart sets it always, is no word for a cluster.
#[test]
fn sentinels_and_a_cluster_are_not_both() {
    let folder = service();
    let with_cluster = |cluster: &str| {
        let mut command = folder.command(crate::support::AJWT);
        let servers = "--nonce redis://main --redis-sentinel redis://127.0.0.1:1";
        command.args(
            format!("gateway --listen 127.0.0.1:0 --database-url sqlite://ajwt.db {servers}").split(' '),
        );
        let ran = command.env("AJWT_REDIS_CLUSTER", cluster).output().expect("it runs");
        String::from_utf8(ran.stderr).expect("text")
    };
    let refused = "--redis-cluster and --redis-sentinel are for different servers: give one";
    assert!(with_cluster("true").contains(refused));
    let asked = with_cluster("false");
    assert!(!asked.contains(refused) && asked.contains("127.0.0.1:1"), "{asked}");
}

/// As in an image without ca-certificates.
#[tokio::test]
async fn root_certificates_are_needed_for_trusted_urls_only() {
    let folder = service();
    let without_roots = |listen: &str| {
        let mut command = folder.command(crate::support::AJWT);
        command.args(["gateway", "--listen", listen]).args(SQL.split(' '));
        command.env("SSL_CERT_FILE", "/nowhere").env("SSL_CERT_DIR", "/nowhere");
        command
    };
    let gateway = Gateway::of(&mut without_roots("127.0.0.1:0"), &folder);
    assert!(gateway.log().contains("no key set can be fetched"), "{}", gateway.log());
    assert_eq!(gateway.status(&folder.authorization()).await, 200);
    drop(gateway);

    // Where it cannot listen either, so that it ends in any case.
    let is_refused = |more: &[&str]| {
        let output = without_roots("192.0.2.1:1").args(more).output().expect("it runs");
        let told = String::from_utf8(output.stderr).expect("text");
        assert!(
            output.status.code() == Some(1) && told.contains("are root certificates installed"),
            "{told}"
        );
    };
    is_refused(&["--jwks-allow-network", "10.0.0.0/8"]);
    let url = "https://keys.example/jwks.json";
    folder.good(&format!("trust add billing {url} --no-fetch --database-url sqlite://ajwt.db"));
    is_refused(&[]);
}
