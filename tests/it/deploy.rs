//! Containers, compose, continuous integration: read and held to what they promise, without an engine.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use lapin::BasicProperties;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
};
use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use serde_json::{Map, Value};
use yaml_rust2::{Yaml, YamlLoader};

use crate::support::app::{event, subscription};
use crate::support::document::{blocks, documents, read, root, variables};
use crate::support::services::control_shared_broker;
use crate::support::{App, Receiver, Reply, free_port, unique};

// --- reading --------------------------------------------------------------------------------------------

/// A YAML file as JSON, with `<<` carried out.
#[track_caller]
fn yaml(name: &str) -> Value {
    let documents =
        YamlLoader::load_from_str(&read(name)).unwrap_or_else(|error| panic!("`{name}`: {error}"));
    assert_eq!(documents.len(), 1, "`{name}` holds one document");
    json_of(&documents[0])
}

fn json_of(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::String(text) | Yaml::Real(text) => Value::from(text.as_str()),
        Yaml::Integer(number) => Value::from(*number),
        Yaml::Boolean(flag) => Value::from(*flag),
        Yaml::Array(items) => items.iter().map(json_of).collect(),
        Yaml::Hash(members) => {
            let mut object = Map::new();
            for (key, value) in members {
                match (key.as_str().unwrap(), json_of(value)) {
                    // What is written beside it wins, before and after.
                    ("<<", Value::Object(merged)) => {
                        for (key, value) in merged {
                            object.entry(key).or_insert(value);
                        }
                    }
                    (key, value) => drop(object.insert(key.to_owned(), value)),
                }
            }
            Value::Object(object)
        }
        Yaml::Null => Value::Null,
        Yaml::Alias(_) | Yaml::BadValue => panic!("not understood: {yaml:?}"),
    }
}

fn services() -> Map<String, Value> {
    let Value::Object(services) = yaml("deploy/compose.yaml")["services"].take() else {
        panic!("no services")
    };
    services
}

/// Instructions of the Dockerfile with their arguments, continued lines joined.
fn dockerfile() -> Vec<(String, String)> {
    let text = read("deploy/Dockerfile");
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            line.split_once(' ').unwrap_or_else(|| panic!("an instruction without arguments: {line}"))
        })
        .map(|(instruction, arguments)| {
            (instruction.to_owned(), arguments.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect()
}

/// The arguments of an instruction, of the last stage only.
fn of_last_stage(instruction: &str) -> Vec<String> {
    let all = dockerfile();
    let start = all.iter().rposition(|(name, _)| name == "FROM").unwrap();
    all[start..]
        .iter()
        .filter(|(name, _)| name == instruction)
        .map(|(_, arguments)| arguments.clone())
        .collect()
}

/// A `CMD [..]` behind whatever options stand before it.
fn words(arguments: &str) -> Vec<String> {
    serde_json::from_str(&arguments[arguments.find('[').unwrap()..]).unwrap()
}

/// Keys of the configuration with the variables that set them.
fn known_variables() -> BTreeSet<String> {
    let defaults: toml::Table = paperboy::config::DEFAULTS.parse().unwrap();
    let mut known = BTreeSet::new();
    for (section, keys) in &defaults {
        match keys.as_table() {
            Some(keys) => {
                known.extend(keys.keys().map(|key| format!("PAPERBOY__{section}__{key}").to_uppercase()));
            }
            None => drop(known.insert(format!("PAPERBOY__{section}").to_uppercase())),
        }
    }
    known
}

/// `${NAME:?why}` and `${NAME:-}` filled in, `$$` taken for a dollar, as compose does.
fn interpolate(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(place) = rest.find('$') {
        out.push_str(&rest[..place]);
        rest = &rest[place + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (inside, after) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).unwrap();
        let name = inside.split(':').next().unwrap();
        let value = values.get(name).unwrap_or_else(|| panic!("`{name}` is not in .env.example"));
        out.push_str(value);
        rest = after;
    }
    out + rest
}

/// The names in `.env.example`, all of them empty there.
fn env_example() -> BTreeSet<String> {
    let text = read("deploy/.env.example");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once('=').unwrap();
            assert_eq!(value, "", "`{name}` has a value: there are no default passwords");
            name.to_owned()
        })
        .collect()
}

// --- all of it ------------------------------------------------------------------------------------------

#[test]
fn every_variable_that_is_named_anywhere_is_a_setting() {
    let known = known_variables();
    let mut files = documents();
    files.extend(
        [
            "deploy/compose.yaml",
            "deploy/Dockerfile",
            "deploy/.env.example",
            ".github/workflows/ci.yml",
            "examples/producer.rs",
        ]
        .map(str::to_owned),
    );
    let mut faults = Vec::new();
    let mut count = 0;
    for file in files {
        let text = read(&file);
        count += variables(&text).len();
        let unknown = variables(&text).into_iter().filter(|name| !known.contains(*name));
        faults.extend(unknown.map(|name| format!("{file}: `{name}` sets nothing")));
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
    assert!(count > 20, "{count} variables were found");
}

/// Whether an image says which version, so that the same file makes the same thing next year.
fn is_pinned(image: &str) -> bool {
    let tag = image.rsplit('/').next().unwrap().split_once(':').map_or("", |(_, tag)| tag);
    !image.contains("latest") && tag.starts_with(|char: char| char.is_ascii_digit())
}

#[test]
fn every_image_is_of_a_certain_version() {
    let mut images: Vec<String> =
        services().values().map(|service| service["image"].as_str().unwrap().to_owned()).collect();
    let from = dockerfile().into_iter().filter(|(instruction, _)| instruction == "FROM");
    images.extend(from.map(|(_, arguments)| arguments.split(' ').next().unwrap().to_owned()));
    for entry in
        yaml(".github/workflows/ci.yml")["jobs"]["ci"]["strategy"]["matrix"]["include"].as_array().unwrap()
    {
        images.extend(entry["container"].as_str().filter(|image| !image.is_empty()).map(str::to_owned));
    }
    assert_eq!(images.len(), 8, "{images:?}");
    let loose: Vec<_> = images.iter().filter(|image| !is_pinned(image)).collect();
    assert!(loose.is_empty(), "{loose:?}");
    let ours = format!("paperboy:{}", env!("CARGO_PKG_VERSION"));
    assert!(images.contains(&ours), "the image is called `{ours}`, after the version in Cargo.toml");
    assert!(
        !is_pinned("redis")
            && !is_pinned("redis:latest")
            && !is_pinned("redis:alpine")
            && is_pinned("redis:7-alpine")
    );
}

#[test]
fn the_rust_of_containers_is_the_rust_of_the_project() {
    let version = read("Cargo.toml")
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .unwrap()
        .replace('"', "");
    for file in ["deploy/Dockerfile", ".github/workflows/ci.yml"] {
        assert!(read(file).contains(&format!("rust:{version}-")), "{file} has another Rust than {version}");
    }
    assert!(read(".github/workflows/ci.yml").contains(&format!("rustup toolchain install {version} ")));
}

// --- compose --------------------------------------------------------------------------------------------

#[test]
fn every_service_is_checked_and_has_time_to_stop() {
    let grace_s =
        paperboy::config::DEFAULTS.lines().find_map(|line| line.strip_prefix("grace_s = ")).unwrap();
    for (name, service) in services() {
        assert!(service["healthcheck"]["test"].is_array(), "`{name}` has no health check");
        let stop = service["stop_grace_period"].as_str().and_then(|text| text.strip_suffix('s'));
        let stop_s: u32 =
            stop.unwrap_or_else(|| panic!("`{name}`: no `stop_grace_period` in seconds")).parse().unwrap();
        let set = service["environment"]["PAPERBOY__DELIVERY__GRACE_S"].as_str();
        let grace_s: u32 = set.unwrap_or(grace_s).parse().unwrap();
        assert!(stop_s >= grace_s + 10, "`{name}` is killed after {stop_s} s, deliveries have {grace_s} s");
        assert_eq!(service["restart"], "unless-stopped", "`{name}`");
    }
}

#[test]
fn services_wait_until_what_they_need_is_well() {
    let services = services();
    for name in ["api", "worker"] {
        let needs = services[name]["depends_on"].as_object().unwrap();
        for (need, how) in needs {
            assert!(services.contains_key(need), "`{name}` needs `{need}`, which is no service");
            assert_eq!(how["condition"], "service_healthy", "`{name}` needs `{need}`");
        }
        assert!(needs.len() >= 3, "`{name}` needs broker, cache and store");
        assert_eq!(services[name]["command"], serde_json::json!(["serve", "--role", name]));
    }
    assert!(services["worker"]["depends_on"].get("api").is_some(), "a worker never makes a store");
    assert!(services["worker"]["deploy"]["replicas"].as_u64().unwrap() >= 2);
    assert!(services["worker"].get("ports").is_none(), "several workers cannot share a port");
}

#[test]
fn volumes_are_declared_and_ports_are_on_loopback() {
    let compose = yaml("deploy/compose.yaml");
    for (name, service) in services() {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            assert!(
                compose["volumes"].get(source).is_some(),
                "`{name}` mounts `{source}`, which is not declared"
            );
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(
                port.as_str().unwrap().starts_with("127.0.0.1:"),
                "`{name}` is open to everybody: {port}"
            );
        }
    }
}

#[test]
fn passwords_come_from_the_environment_and_must_be_there() {
    let asked = env_example();
    let text = read("deploy/compose.yaml");
    let mut used = BTreeSet::new();
    for inside in text.split("${").skip(1).map(|rest| rest.split('}').next().unwrap()) {
        let name = inside.split(':').next().unwrap();
        let is_secret = ["PASSWORD", "SECRETS__KEY"].iter().any(|word| name.contains(word));
        assert_eq!(inside.contains(":?"), is_secret, "`{inside}`: secrets must be set, anything else may be");
        used.insert(name.to_owned());
    }
    assert_eq!(used, asked, "compose.yaml and .env.example name the same variables");
    for (name, service) in services() {
        for (variable, value) in service["environment"].as_object().unwrap() {
            let is_secret = ["PASS", "AUTH", "SECRETS"].iter().any(|word| variable.contains(word));
            let value = value.as_str().unwrap_or_else(|| panic!("`{name}`: `{variable}` is not a string"));
            assert!(!is_secret || value.starts_with("${"), "`{name}`: `{variable}` stands in the file");
        }
    }
    let ignored = read(".gitignore");
    assert!(ignored.lines().any(|line| line == "/deploy/.env"), "git must not take deploy/.env");
}

#[test]
fn the_program_takes_what_compose_gives_it() {
    let values: BTreeMap<String, String> = env_example()
        .into_iter()
        .map(|name| {
            let value = match name.as_str() {
                "PAPERBOY__SECRETS__KEY" => "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
                "PAPERBOY__EGRESS__ALLOW" => "10.20.0.0/16",
                "PAPERBOY__SECRETS__OLD_KEYS" => "",
                "PAPERBOY__API__KEYS" => "0123456789abcdef0123456789abcdef",
                _ => "0123456789abcdef",
            };
            (name, value.to_owned())
        })
        .collect();
    for name in ["api", "worker"] {
        let service = services().remove(name).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_paperboy"));
        command.args(["config", "check"]).env_clear();
        for (variable, value) in service["environment"].as_object().unwrap() {
            assert!(known_variables().contains(variable), "`{name}`: `{variable}` sets nothing");
            command.env(variable, interpolate(value.as_str().unwrap(), &values));
        }
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        // A program that does not know Postgres says so, and so does the document; one that does, neither.
        let faults: Vec<&str> = said.lines().filter(|line| line.starts_with("error:")).collect();
        let is_too_early =
            matches!(faults.as_slice(), [only] if only.contains("`postgres://…` is not supported yet"));
        assert!(output.status.success() || is_too_early, "`{name}`:\n{said}");
        let is_told = read("deploy/README.md").contains("does not know Postgres yet");
        assert_eq!(is_told, is_too_early, "deploy/README.md says whether this version knows Postgres");
        assert!(!said.contains("for `--role worker`"), "`{name}`:\n{said}");
    }
}

// --- the image ------------------------------------------------------------------------------------------

#[test]
fn the_image_is_small_and_not_roots() {
    let user = of_last_stage("USER").remove(0);
    let ids: Vec<u32> =
        user.split(':').map(|id| id.parse().expect("a number, so that it can be checked")).collect();
    assert!(ids.len() == 2 && ids.iter().all(|id| *id >= 1000), "USER {user}");
    assert_eq!(words(&of_last_stage("ENTRYPOINT")[0]), ["paperboy"]);
    assert_eq!(words(&of_last_stage("CMD")[0]), ["serve"]);
    let runs = of_last_stage("RUN").join(" ");
    assert!(runs.contains("ca-certificates") && runs.contains("--no-install-recommends"));
    assert!(runs.contains("rm -rf /var/lib/apt/lists"), "package lists stay in a layer");
    for tool in ["gcc", "curl", "wget", "cargo", "build-essential"] {
        assert!(!runs.contains(tool), "`{tool}` is in the image");
    }
    assert!(of_last_stage("COPY").iter().all(|copy| copy.starts_with("--from=build ")));
    let (data, folder) = (of_last_stage("VOLUME").remove(0), of_last_stage("WORKDIR").remove(0));
    // The default store lies below the working folder.
    assert_eq!(words(&data), [format!("{folder}/data")]);
    assert!(paperboy::config::DEFAULTS.contains("url = \"sqlite://data/paperboy.db\""));
    assert!(runs.contains(&format!("{folder}/data")) && runs.contains(&format!("--owner={}", ids[0])));
}

/// What the first stage takes from the project.
fn copied() -> Vec<String> {
    let copies =
        dockerfile().into_iter().filter(|(name, rest)| name == "COPY" && !rest.starts_with("--from"));
    let sources = copies.flat_map(|(_, arguments)| {
        let mut paths: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        paths.pop();
        paths
    });
    sources.collect()
}

#[test]
fn everything_that_is_copied_exists_and_is_not_ignored() {
    let ignored = read(".dockerignore");
    let rules: Vec<&str> =
        ignored.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(rules[0], "*", "only what is named gets into the image");
    let allowed: BTreeSet<&str> = rules[1..].iter().map(|rule| rule.strip_prefix('!').unwrap()).collect();
    let copied = copied();
    assert_eq!(copied.iter().map(String::as_str).collect::<BTreeSet<_>>(), allowed);
    for path in &copied {
        assert!(root().join(path).exists(), "`{path}` is copied and does not exist");
    }
}

#[test]
fn everything_the_program_is_built_from_is_copied() {
    let copied = copied();
    let mut included = BTreeSet::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            for call in ["include_str!(\"", "include_bytes!(\""] {
                let named = text.split(call).skip(1).map(|rest| rest.split('"').next().unwrap());
                included.extend(named.map(|name| path.parent().unwrap().join(name).canonicalize().unwrap()));
            }
            // From the root of the project.
            let named = text.split("migrate!(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
            included.extend(named.map(|name| root().join(name).canonicalize().unwrap()));
        }
    }
    assert!(included.len() >= 2, "{included:?}");
    let root = root().canonicalize().unwrap();
    for path in included {
        let is_copied = copied.iter().any(|part| path.starts_with(root.join(part)));
        assert!(is_copied, "`{}` is built in and not copied", path.display());
    }
}

/// The image's health check, for a port.
fn health_check(port: u16) -> Vec<String> {
    let mut check = words(&of_last_stage("HEALTHCHECK")[0]);
    for word in &mut check {
        *word = word.replace("/8080", &format!("/{port}"));
    }
    assert!(check.iter().any(|word| word.contains(&format!("/dev/tcp/127.0.0.1/{port} "))), "{check:?}");
    check
}

#[test]
fn compose_checks_health_as_the_image_does() {
    let image = words(&of_last_stage("HEALTHCHECK")[0]);
    for name in ["api", "worker"] {
        let service = services().remove(name).unwrap();
        let test = service["healthcheck"]["test"].as_array().unwrap();
        let test: Vec<String> =
            test.iter().map(|word| interpolate(word.as_str().unwrap(), &BTreeMap::new())).collect();
        assert_eq!(test[0], "CMD");
        assert_eq!(test[1..], image);
        let address =
            service["environment"][format!("PAPERBOY__{}__LISTEN", name.to_uppercase())].as_str().unwrap();
        assert_eq!(address, "0.0.0.0:8080", "`{name}` listens where it is asked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_tells_a_living_process_from_none() {
    let check = |port: u16| {
        let words = health_check(port);
        let mut command = tokio::process::Command::new(&words[0]);
        command.args(&words[1..]).stderr(std::process::Stdio::null());
        async move { command.status().await.unwrap().success() }
    };
    let app = App::new();
    app.migrate().await;
    let worker = app.serve("worker").await;
    assert!(check(worker.port).await);
    worker.stop().await;
    assert!(!check(free_port()).await);
    // Something else answers there.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let other = tokio::spawn(async move {
        let answer = || async { (axum::http::StatusCode::NOT_FOUND, "who?") };
        axum::serve(listener, axum::Router::new().fallback(answer)).await.unwrap();
    });
    assert!(!check(port).await);
    other.abort();
}

// --- continuous integration -----------------------------------------------------------------------------

#[test]
fn continuous_integration_runs_what_a_change_has_to_pass() {
    let workflow = yaml(".github/workflows/ci.yml");
    assert_eq!(workflow["permissions"], serde_json::json!({ "contents": "read" }));
    let mut runs = Vec::new();
    for (name, job) in workflow["jobs"].as_object().unwrap() {
        assert!(job["timeout-minutes"].is_i64(), "`{name}` may run for ever");
        assert!(!job["runs-on"].as_str().unwrap().ends_with("latest"), "`{name}`");
        for step in job["steps"].as_array().unwrap() {
            runs.extend(step["run"].as_str().map(str::to_owned));
            let Some(action) = step["uses"].as_str() else { continue };
            let (_, version) = action.split_once('@').unwrap();
            assert!(version.starts_with('v'), "`{action}` is of no certain version");
        }
    }
    assert!(runs.iter().any(|run| run == ".ci/run"), "{runs:?}");
    for file in ["deploy/Dockerfile", "deploy/compose.yaml"] {
        assert!(runs.iter().any(|run| run.contains(file)), "nothing builds or checks `{file}`");
    }
}

// --- permissions ----------------------------------------------------------------------------------------

/// The three patterns README.md gives a user, for another prefix.
fn patterns_of(user: &str, prefix: &str) -> Vec<String> {
    let readme = read("deploy/README.md");
    let shell = blocks(&readme, "sh").concat();
    let line = shell
        .lines()
        .find_map(|line| line.split_once(&format!("set_permissions --vhost / {user} ")))
        .unwrap()
        .1;
    let patterns: Vec<String> =
        line.split('\'').skip(1).step_by(2).map(|text| text.replace("paperboy", prefix)).collect();
    assert_eq!(patterns.len(), 3, "{line}");
    patterns
}

async fn channel_of(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_rights_of_the_readme_a_producer_can_only_publish_and_paperboy_can_work() {
    let mut app = App::new();
    let shared = app.setting("BROKER__URL").to_owned();
    let (_, place) = shared.split_once('@').unwrap();
    let mut urls = Vec::new();
    let mut users = Vec::new();
    for user in ["producer", "paperboy"] {
        let (name, patterns) = (format!("{user}-{}", unique()), patterns_of(user, &app.prefix));
        control_shared_broker(&["add_user", &name, "secret"]).await;
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        control_shared_broker(&[&["set_permissions", "--vhost", "/", &name], &patterns[..]].concat()).await;
        urls.push(format!("amqp://{name}:secret@{place}"));
        users.push(name);
    }

    // Paperboy declares, takes, retries through a level, and keeps a dead letter.
    app.set("BROKER__URL", &urls[1]);
    let receiver = Receiver::start(|hit| Reply::status(if hit.nth == 1 { 500 } else { 410 })).await;
    let serve = app.serve("all").await;
    app.subscribe(subscription("acme", &receiver.url("/x"))).await;

    let exchange = format!("{}.events", app.prefix);
    let (connection, channel) = channel_of(&urls[0]).await;
    let body = event("evt_p", "acme", "a.b");
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let publish = channel.basic_publish(exchange.as_str().into(), "a.b".into(), options, &body, persistent);
    let confirm = publish.await.unwrap().await.unwrap();
    assert!(confirm.is_ack() && confirm.take_message().is_none());
    receiver.wait_for(2, 10).await;
    assert_eq!(app.wait_for_dead(1, 10).await[0]["event"], "evt_p");

    // Everything else is refused, each on a channel of its own.
    for denied in ["default exchange", "declare", "bind", "consume", "purge", "exchange"] {
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let retries = format!("{}.retries", app.prefix);
        let (queue, exchange) = (retries.as_str(), exchange.as_str());
        let none = FieldTable::default;
        let result = match denied {
            "default exchange" => {
                let properties = BasicProperties::default();
                let publish =
                    channel.basic_publish("".into(), queue.into(), options, b"{}", properties).await;
                publish.unwrap().await.map(drop)
            }
            "declare" => {
                let name = format!("{}.mine", app.prefix);
                channel.queue_declare(name.into(), QueueDeclareOptions::default(), none()).await.map(drop)
            }
            "bind" => {
                let options = QueueBindOptions::default();
                channel.queue_bind(queue.into(), exchange.into(), "x".into(), options, none()).await
            }
            "consume" => {
                let name = format!("{}.dead.events", app.prefix);
                let options = BasicConsumeOptions::default();
                channel.basic_consume(name.into(), "".into(), options, none()).await.map(drop)
            }
            "purge" => channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.map(drop),
            _ => {
                let name = format!("{}.mine", app.prefix);
                let options = ExchangeDeclareOptions::default();
                channel.exchange_declare(name.into(), ExchangeKind::Topic, options, none()).await
            }
        };
        let error = result.expect_err(denied).to_string();
        assert!(error.contains("ACCESS_REFUSED"), "{denied}: {error}");
    }

    // Paperboy's own rights end at its prefix.
    let (_connection, channel) = channel_of(&urls[1]).await;
    let declared =
        channel.queue_declare("other".into(), QueueDeclareOptions::default(), FieldTable::default()).await;
    assert!(declared.unwrap_err().to_string().contains("ACCESS_REFUSED"));
    serve.stop().await;

    // Without the right to configure it runs on what is there.
    let patterns = patterns_of("paperboy", &app.prefix);
    let readme = read("deploy/README.md");
    assert!(
        readme
            .contains("| paperboy with `broker.declare = false` | nothing (`'^$'`) | the same | the same |")
    );
    control_shared_broker(&["set_permissions", "--vhost", "/", &users[1], "^$", &patterns[1], &patterns[2]])
        .await;
    app.set("BROKER__DECLARE", "false");
    let serve = app.serve("all").await;
    app.amqp().await.publish("a.b", &event("evt_q", "acme", "a.b"), BasicProperties::default()).await;
    receiver.wait_for(4, 10).await;
    serve.stop().await;
    for user in &users {
        control_shared_broker(&["delete_user", user]).await;
    }
}

mod tests {
    use super::*;

    #[test]
    fn merged_keys_are_there_and_those_beside_them_win() {
        let documents =
            YamlLoader::load_from_str("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz: {b: 4, <<: *x}").unwrap();
        let json = json_of(&documents[0]);
        assert_eq!(json["y"], serde_json::json!({ "a": 1, "b": 3 }));
        assert_eq!(json["z"], serde_json::json!({ "a": 1, "b": 4 }));
    }

    #[test]
    fn variables_are_filled_in_as_compose_does() {
        let values = BTreeMap::from([("A".to_owned(), "x".to_owned())]);
        assert_eq!(interpolate("a${A:?why}b${A:-}$$c", &values), "axbx$c");
    }
}
