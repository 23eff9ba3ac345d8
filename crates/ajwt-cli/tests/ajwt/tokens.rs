//! `token`, `explain` and `request`.

use std::process::Stdio;

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, StatusCode},
    routing::{any, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::net::TcpListener;

use crate::{
    expected::expect,
    support::{Folder, Gateway, authorization_ahead, project_file},
    walkthrough::{Shell, blocks},
};

/// An `Authorization` header of the Python library, and when it was made.
fn token_of_python() -> (String, i64) {
    let fixture = project_file("crates/ajwt-core/tests/fixtures/python.json");
    let fixture: serde_json::Value = serde_json::from_str(&fixture).expect("JSON");
    let token = fixture["tokens"][0]["authorization"].as_str().expect("a token");
    (token.to_owned(), fixture["time"].as_i64().expect("its time"))
}

#[test]
fn a_token_says_what_it_was_asked_to_say() {
    let folder = Folder::new();
    folder.good("keygen -o a.key");
    let token = folder.good("token --username guido --key a.key --audience orders");
    let explained = folder.good(&format!("explain {} --key a.key.pub --audience orders", token.trim_end()));
    assert!(explained.contains("username  guido"), "{explained}");
    assert!(explained.contains("aud       orders"), "{explained}");
    assert!(explained.contains("the key given: Ed25519"), "{explained}");
    let token = folder.good("token --username guido --key a.key");
    folder.good(&format!("explain {} --audience orders --allow-missing-audience", token.trim_end()));
    let header = folder.good("token --username guido --key a.key --header --scheme Bearer");
    assert!(header.starts_with("Authorization: Bearer ey"), "{header}");
    let piped = folder.ajwt_with(&["explain", "-", "--scheme", "Bearer"], &header);
    assert_eq!(piped.code, Some(0), "{piped:?}");
    let told = folder.bad("token --username guido --key a.key --scheme JWT,");
    assert!(told.starts_with("\"JWT,\" is no authentication scheme"), "{told}");
}

#[test]
fn why_a_token_is_refused() {
    let folder = Folder::new();
    folder.good("keygen -o a.key");
    folder.good("keygen -o other.key");
    let explain = |token: &str, options: &str, verdict: &str| {
        let words: Vec<&str> = ["explain", token].into_iter().chain(options.split_whitespace()).collect();
        let ran = folder.ajwt(&words);
        assert_eq!((ran.code, ran.err.as_str()), (Some(3), ""), "{ran:?}");
        let last = ran.out.lines().last().unwrap_or_default().to_owned();
        assert!(last.starts_with(&format!("  refused: {verdict}")), "{verdict}: {last}");
    };
    let token = folder.good("token --username guido --key a.key").trim_end().to_owned();
    explain(&token, "--key other.key.pub", "bad_signature");
    folder.good("keygen --type rsa --bits 2048 -o rsa.key");
    explain(&token, "--key rsa.key.pub", "no_candidate_key");
    explain(&token, "--audience orders", "wrong_audience");
    let of_another = folder.good("token --username guido --key a.key --audience invoices");
    explain(of_another.trim_end(), "--audience orders --allow-missing-audience", "wrong_audience");
    explain(&token, "--at 2020-01-01", "outside_window");
    explain(&token.replace('.', ".."), "", "malformed_token");
    explain(&token[1..], "", "malformed_token");
    explain("", "", "malformed_token");
    let none = "eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6ImEiLCJ0aW1lIjoxLCJub25jZSI6ImEifQ.AA";
    explain(none, "", "unsupported_token");
}

/// A server looks at the header before it looks at the token.
#[test]
fn a_header_is_explained_by_the_rules_of_a_server() {
    let folder = Folder::new();
    folder.good("keygen -o a.key");
    let token = folder.good("token --username guido --key a.key").trim_end().to_owned();
    for (header, code, verdict) in [
        ("%", 0, "accepted"),
        ("JWT %", 0, "accepted"),
        (" jwt %\r\n", 0, "accepted"),
        ("authorization:JWT %", 0, "accepted"),
        ("Authorization: \t JWT %", 0, "accepted"),
        ("Bearer %", 3, "refused: no_credentials (the header is not of the scheme JWT)"),
        ("JWT\t%", 3, "refused: no_credentials"),
        ("JWT\u{a0}%", 3, "refused: no_credentials"),
        ("Authorization: %", 3, "refused: no_credentials"),
        ("Authorization:", 3, "refused: no_credentials"),
        ("Proxy-Authorization: JWT %", 3, "refused: no_credentials"),
        ("JWT  %", 3, "refused: malformed_header"),
        ("JWT % extra %", 3, "refused: malformed_header"),
        ("Authorization: JWT %, JWT %", 3, "refused: malformed_header"),
        ("Authorization: JWT", 3, "refused: malformed_header"),
    ] {
        let ran = folder.ajwt(&["explain", &header.replace('%', &token)]);
        let last = ran.out.lines().last().unwrap_or_default();
        assert!(ran.code == Some(code) && last.trim_start().starts_with(verdict), "{header:?}: {ran:?}");
    }
    let told = folder.bad("explain JWT\t. --scheme a/b");
    assert!(told.starts_with("\"a/b\" is no authentication scheme"), "{told}");
}

/// Also of a token by itself, which comes to a server in a header.
#[test]
fn what_no_header_has_room_for_is_refused() {
    let folder = Folder::new();
    let last = |token: &str, scheme: &str| {
        let ran = folder.ajwt(&["explain", token, "--scheme", scheme, "--at", "1000"]);
        (ran.code, ran.out.lines().last().unwrap_or_default().trim_start().to_owned())
    };
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#);
    // Of 64 bytes. Without a key nobody asks who made it.
    let signature = "A".repeat(86);
    let token = |claims_len: usize| {
        let claims = r#"{"username":"guido","time":1000,"nonce":"n","more":""#;
        let more = "m".repeat(claims_len - claims.len() - 2);
        format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(format!("{claims}{more}\"}}")))
    };
    let longest = token(6060);
    assert_eq!(longest.len() + "JWT ".len(), 8192);
    let accepted = "accepted, if a key of the user made it and it was not used before";
    let too_long = "refused: malformed_header (the header is too long with this token)";
    assert_eq!(last(&longest, "JWT"), (Some(0), accepted.to_owned()));
    assert_eq!(last(&format!("JWT {longest}"), "JWT"), (Some(0), accepted.to_owned()));
    assert_eq!(last(&longest, "Bearer"), (Some(3), too_long.to_owned()));
    let longer = token(6061);
    assert_eq!(last(&longer, "JWT"), (Some(3), too_long.to_owned()));
    let (code, told) = last(&format!("JWT {longer}"), "JWT");
    assert!(code == Some(3) && told.starts_with("refused: malformed_header"), "{told}");
    assert_eq!(last(&"a".repeat(9000), "JWT"), (Some(3), too_long.to_owned()));
}

#[test]
fn no_audience_is_told_from_another_one() {
    let folder = Folder::new();
    folder.good("keygen -o a.key");
    let explained = |of_token: &str, audience: &str| {
        let token = folder.good(&format!("token --username guido --key a.key{of_token}"));
        let mut command = folder.command(crate::support::AJWT);
        let output = command.args(["explain", token.trim_end()]).env("AJWT_AUDIENCE", audience).output();
        let text = String::from_utf8(output.expect("it runs").stdout).expect("text");
        text.lines().last().unwrap_or_default().trim_start().to_owned()
    };
    let accepted = "accepted, if a key of the user made it and it was not used before";
    assert_eq!(explained(" --audience orders", "invoices,orders"), accepted);
    for (of_token, why) in [
        ("", "the token names no audience, and must"),
        (" --audience others", "the token is for another audience"),
    ] {
        assert_eq!(explained(of_token, "invoices,orders"), format!("refused: wrong_audience ({why})"));
    }
}

/// No token would be for it.
#[test]
fn an_audience_with_a_space_around_it_is_refused() {
    let folder = Folder::new();
    for (audiences, wrong) in [
        ("orders, invoices", " invoices"),
        ("orders ,invoices", "orders "),
        ("orders,\u{a0}invoices", "\u{a0}invoices"),
    ] {
        let told = format!(
            "ajwt: the audience {wrong:?} begins or ends with a space: write a list as in orders,invoices\n"
        );
        let ran = folder.ajwt(&["explain", "nonsense", "--audience", audiences]);
        assert_eq!((ran.code, ran.err), (Some(1), told), "{audiences:?}");
    }
    let ran = folder.ajwt(&["explain", "nonsense", "--audience", "of orders,invoices"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(3), ""));
}

/// The gateway takes a list from the same variable.
#[test]
fn a_token_is_for_one_service() {
    let folder = Folder::new();
    folder.good("keygen -o a.key");
    for words in ["token", "request GET http://127.0.0.1:1/"] {
        let mut command = folder.command(crate::support::AJWT);
        command.args(words.split(' ')).args(["--username", "guido", "--key", "a.key"]);
        let output = command.env("AJWT_AUDIENCE", "invoices,orders").output().expect("it runs");
        let told = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{words}: {told}");
        assert!(
            told.contains("'invoices,orders' for '--audience <NAME>': a token is for one service"),
            "{told}"
        );
    }
}

/// As `${NAME:-}` makes it in a compose file: it is not said that nothing was given.
#[test]
fn an_empty_variable_is_told_by_its_name_where_it_has_to_be_given() {
    let folder = Folder::new();
    let run = |words: &str, variables: &[&str]| {
        let mut command = folder.command(crate::support::AJWT);
        command.args(words.split(' ')).envs(variables.iter().map(|variable| (*variable, "")));
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    for (words, variable) in [
        ("token --username guido", "AJWT_KEY"),
        ("token --key a.key", "AJWT_USERNAME"),
        ("request GET http://127.0.0.1:1/ --username guido", "AJWT_KEY"),
    ] {
        let told = format!("ajwt: {variable} is empty: give it a value, or unset it\n");
        assert_eq!(run(words, &[variable]), (Some(1), told), "{words}");
    }
    // What the command line says needs no variable, and what others read is nothing to this command.
    let (code, told) = run("token --username guido", &["AJWT_USERNAME", "AJWT_NONCE"]);
    assert!(code == Some(2) && told.contains("not provided:\n  --key <FILE>"), "{told}");
}

/// Whoever asks why the gateway refuses has its variables set.
#[tokio::test]
async fn the_variables_of_a_gateway_make_its_verdict() {
    let folder = Folder::new();
    folder.good("keygen -o billing.key");
    folder.write("billing.keys", folder.good("key show billing.key --format openssh"));
    // Without an audience, and dated a quarter of an hour ahead.
    for (allow_missing, tolerance, accepted) in
        [("true", "3600", true), ("false", "3600", false), ("true", "20", false)]
    {
        let with_variables = |words: &[&str]| {
            let mut command = folder.command(crate::support::AJWT);
            command.args(words).env("AJWT_AUDIENCE", "orders");
            command.env("AJWT_ALLOW_MISSING_AUDIENCE", allow_missing).env("AJWT_TOLERANCE", tolerance);
            command
        };
        let given = format!("{allow_missing}, {tolerance}");
        let words = ["gateway", "--listen", "127.0.0.1:0", "--keys", ".", "--nonce", "memory"];
        let gateway = Gateway::of(&mut with_variables(&words), &folder);
        let token = authorization_ahead(&folder, 900);
        assert_eq!(gateway.status(&token).await == StatusCode::OK, accepted, "{given}: {}", gateway.log());
        let explained = with_variables(&["explain", &token]).output().expect("it runs");
        let code = if accepted { 0 } else { 3 };
        assert_eq!(explained.status.code(), Some(code), "{given}: {explained:?}");
    }
}

#[test]
fn an_explanation() {
    let folder = Folder::new();
    let (token, time) = token_of_python();
    let explained = |at: i64, code| {
        let ran = folder.ajwt(&["explain", &token, "--at", &at.to_string()]);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        ran.out
    };
    let text = [explained(time + 5, 0), explained(time + 21, 3), explained(time - 86_400, 3)].join("\n");
    expect("explain.txt", &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_signed_and_its_answer_printed() {
    let folder = Folder::new();
    folder.good("keygen -o a.key");
    let echo = |request: Request| async {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1024).await.expect("a body");
        let header = |name: &str| format!("{:?}", parts.headers.get(name));
        let scheme = header("authorization").split(' ').next().map(str::to_owned);
        let text = format!("{} {} {:?} {} {body:?}\n", parts.method, parts.uri, scheme, header("x-color"));
        let status = match parts.uri.path() {
            "/refused" => StatusCode::UNAUTHORIZED,
            "/elsewhere" => StatusCode::FOUND,
            "/unchanged" => StatusCode::NOT_MODIFIED,
            _ => StatusCode::OK,
        };
        let grpc_status = match parts.uri.path() {
            "/greeter" => "16",
            "/greeter/forbidden" => "7",
            _ => "0",
        };
        (status, [("location", "/followed"), ("grpc-status", grpc_status)], text)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(echo))).await });

    let request = |method: &str, path: &str, more: &[&str]| {
        let url = format!("{url}{path}");
        folder.ajwt(&[&["request", method, &url, "--username", "guido", "--key", "a.key"], more].concat())
    };
    let ran = request("GET", "/a?b=c", &["-H", "X-Color: blue"]);
    let told = "GET /a?b=c Some(\"Some(\\\"JWT\") Some(\"blue\") b\"\"\n";
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), told, ""));
    let ran = request("POST", "/", &["-d", "hello"]);
    assert!(ran.out.ends_with("b\"hello\"\n"), "{ran:?}");
    folder.write("body", "of a file");
    let ran = request("PUT", "/", &["-d", "@body", "-i"]);
    assert!(ran.out.starts_with("HTTP/1.1 200 OK\n") && ran.out.ends_with("b\"of a file\"\n"), "{ran:?}");
    let ran = request("GET", "/elsewhere", &["-i"]);
    assert!(ran.out.contains("302 Found"), "a redirect is not followed: {ran:?}");
    let told =
        "ajwt: the server redirects to /followed (302), and redirects are not followed: a token works once\n";
    assert_eq!((ran.code, ran.err.as_str()), (Some(3), told));
    let ran = request("GET", "/unchanged", &[]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    let ran = request("GET", "/refused", &[]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.err.contains("does not accept the token (401): does it know the key"), "{ran:?}");
    // gRPC refuses with status 200.
    let ran = request("POST", "/greeter", &[]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.err.contains("does not accept the token (UNAUTHENTICATED): does it know"), "{ran:?}");
    let ran = request("POST", "/greeter/forbidden", &[]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(3), ""), "{ran:?}");
    // As with `| head -1`: what the server said stays the exit code.
    let mut command = folder.command(crate::support::AJWT);
    command.args(["request", "GET", &format!("{url}/refused"), "--username", "guido", "--key", "a.key"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("its end").code(), Some(3));

    let told = folder.bad("request GET http://127.0.0.1:1/ --username guido --key a.key");
    assert!(told.starts_with("the request failed: ") && told.contains("refused"), "{told}");
}

/// Who reads it second would find nothing, and a request would go without its body.
#[test]
fn standard_input_is_for_one_option() {
    let folder = Folder::new();
    folder.write_secret("passphrase", "correct horse");
    folder.good("keygen -o a.key --passphrase-file passphrase");
    let request = "request PUT http://127.0.0.1:1/ --username guido --key a.key --passphrase-file -";
    for (words, input) in [
        ("explain - --key -".to_owned(), folder.read("a.key.pub")),
        ("key show - --passphrase-file -".to_owned(), folder.read("a.key")),
        (format!("{request} -d @-"), "correct horse".to_owned()),
    ] {
        let ran = folder.ajwt_with(&words.split(' ').collect::<Vec<_>>(), &input);
        let told = "ajwt: - is given more than once, and standard input can be read once: name files for the others\n";
        assert_eq!((ran.code, ran.err.as_str()), (Some(1), told), "{words}");
    }
}

/// A service that wants JSON takes no body without its type.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_request_says_that_it_is_json() {
    let folder = Folder::new();
    folder.good("keygen -o billing.key");
    folder.write("order.json", "{}");
    let order = |headers: HeaderMap, body: String| async move {
        let is_json = headers.get("content-type").is_some_and(|found| found == "application/json");
        if is_json { (StatusCode::OK, body) } else { (StatusCode::UNSUPPORTED_MEDIA_TYPE, String::new()) }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let app = Router::new().route("/orders", post(order));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let page = project_file("docs/cli.md");
    let (_, section) = page.split_once("## Calling a service\n").expect("the section");
    let (request, _) = blocks(section)[0].text.split_once("\najwt token ").expect("two commands");
    assert_eq!(Shell::new(&folder).with("https://orders.example", url).run(request), "{}");
}

/// It would read a token that is not used yet.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_proxy_that_is_given_is_used() {
    let folder = Folder::new();
    folder.good("keygen -o a.key");
    let echo = |request: Request| async move { format!("{} {}\n", request.method(), request.uri()) };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(echo))).await });

    let request = |target: &str, proxy: &[&str]| {
        let mut command = folder.command(crate::support::AJWT);
        for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            // Nobody listens there.
            command.env(variable, "http://127.0.0.1:1");
        }
        command.args(["request", "GET", target, "--username", "guido", "--key", "a.key"]).args(proxy);
        let output = command.output().expect("it runs");
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
        (output.status.code(), out, err)
    };
    let direct = request(&format!("{url}/orders"), &[]);
    assert_eq!(direct, (Some(0), "GET /orders\n".to_owned(), String::new()));
    // What a proxy is told is the whole URL.
    let through = request("http://orders.invalid/orders", &["--proxy", &url]);
    assert_eq!(through, (Some(0), "GET http://orders.invalid/orders\n".to_owned(), String::new()));

    for wrong in ["socks5://u:geheim@127.0.0.1:1", "geheim"] {
        let request = "request GET http://127.0.0.1:1/ --username guido --key a.key";
        let told = folder.bad(&format!("{request} --proxy {wrong}"));
        assert_eq!(told, "--proxy is no URL that begins with http:// or https://");
    }
}
