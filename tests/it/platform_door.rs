//! `POST /v1/subscriptions?preset=…`: every platform's own configuration object over the API, as it stands.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::{Value, json};

use crate::support::http::{Answered, Ask};
use crate::support::{App, Serve, ask, eventually};

fn post(serve: &Serve, query: &str) -> Ask {
    ask(serve.port, "POST", &format!("/v1/subscriptions?{query}"))
}

async fn set_up(serve: &Serve, preset: &str, object: &Value) -> Answered {
    post(serve, &format!("preset={preset}&tenant=acme")).json(object).send().await
}

/// Where the answer says it is.
async fn shown(serve: &Serve, answer: &Answered) -> Value {
    ask(serve.port, "GET", answer.header("location")).send().await.is(200)
}

fn fields(answer: &Value, list: &str) -> Vec<String> {
    let list = answer[list].as_array().into_iter().flatten();
    list.map(|entry| entry["field"].as_str().unwrap().to_owned()).collect()
}

fn idexa() -> Value {
    json!({
        "name": "Webhook 1", "type": 0, "method": "POST", "headers": {"Content-Type": "application/json"},
        "headerAuth": "Bearer", "url": "http://localhost:5000/ocr_feedback/:id", "authorization": null,
        "authorizationUrl": "http://localhost:5000/login", "authorizationMethod": "POST",
        "authorizationHeaders": {"Content-Type": "application/x-www-form-urlencoded"},
        "authorizationBody": {"username": "root", "password": "canary"},
        "authorizationResponseTokenAttr": "access_token",
    })
}

fn account(host: &str) -> Value {
    json!({"webhook_endpoint": format!("https://user:canary@{host}/hook"), "events": ["DOC_VERIFIED"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn idexas_object_is_answered_as_its_record_and_a_second_of_a_type_names_the_first() {
    let app = App::new();
    let serve = app.serve("api").await;
    let answer = set_up(&serve, "idexa", &idexa()).await;
    let record = answer.is(201);
    let names: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "authorizationHeaders",
        "authorizationMethod",
        "authorizationResponseTokenAttr",
        "authorizationUrl",
        "clientId",
        "createdAt",
        "headerAuth",
        "headers",
        "id",
        "method",
        "name",
        "type",
        "updatedAt",
        "url",
    ];
    assert_eq!(names, expected);
    assert!(!answer.body.contains("canary"), "{}", answer.body);
    let id = record["id"].as_str().unwrap();
    assert_eq!(
        (answer.header("location"), record["clientId"].as_str()),
        (&*format!("/v1/subscriptions/{id}"), Some("acme"))
    );
    let document = shown(&serve, &answer).await;
    assert_eq!(
        (&document["preset"], &document["auth"]["url"]),
        (&json!("idexa"), &idexa()["authorizationUrl"])
    );

    let second = set_up(&serve, "idexa", &idexa()).await.problem(409);
    assert!(second["detail"].as_str().unwrap().contains(&format!("`{id}`")), "{second}");
    assert!(second["hint"].as_str().unwrap().contains(&format!("DELETE /v1/subscriptions/{id}")), "{second}");
    // As a document of ours, under another name of the type, and as a change of one that had another.
    let ours = |events: Value| json!({"tenant": "acme", "preset": "idexa", "name": "b", "events": events, "request": {"url": "https://h.example/:id"}});
    let add =
        async |document: Value| ask(serve.port, "POST", "/v1/subscriptions").json(&document).send().await;
    add(ours(json!(["document.*"]))).await.problem(409);
    let other = add(ours(json!(["batch.completed"]))).await.is(201);
    let path = format!("/v1/subscriptions/{}", other["id"].as_str().unwrap());
    for (method, change) in [("PATCH", json!({"events": ["document.finished"]})), ("PUT", ours(json!(["#"])))]
    {
        ask(serve.port, method, &path).json(&change).send().await.problem(409);
    }
    ask(serve.port, "PATCH", &path).json(&json!({"name": "c"})).send().await.is(200);
    ask(serve.port, "DELETE", &format!("/v1/subscriptions/{id}")).send().await.is(204);
    ask(serve.port, "PATCH", &path).json(&json!({"events": ["document.finished"]})).send().await.is(200);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_platforms_object_is_taken_as_it_stands_and_what_has_no_effect_is_named() {
    let app = App::new();
    let serve = app.serve("api").await;
    let hook = |events: Value| {
        json!({"type": "webhook", "name": "Hook", "queues": ["https://acme.rossum.app/api/v1/queues/8236"],
        "active": true, "events": events, "config": {"url": "https://h.example/user_update", "secret": "canary"}})
    };
    let invofox = json!({"method": "PUT", "url": "https://h.example/x", "events": ["document.processed"],
        "headers": {"X-Mine": "canary"}, "algorithm": "sha512", "secret": "canary"});
    for (preset, object, url) in [
        (
            "contractfit",
            json!({"type": "webhook", "events": ["document_predict"], "headers": {"Authorization": "Bearer canary"},
                "target": "http://localhost:3000/alfred/document_predict"}),
            "http://localhost:3000/alfred/document_predict",
        ),
        ("idexa", idexa(), "http://localhost:5000/ocr_feedback/:id"),
        ("invofox", invofox.clone(), "https://h.example/x"),
        ("invofox-2", invofox, "https://h.example/x"),
        ("rossum", hook(json!(["annotation_content.user_update"])), "https://h.example/user_update"),
        (
            "rossum-seed",
            hook(json!(["annotation_content", "annotation_status.changed"])),
            "https://h.example/user_update",
        ),
        (
            "ocrolus",
            json!({"webhook": {"url": "https://user:canary@h.example.com/hook", "description": "Ocrolus", "is_active": true},
                "event_names": ["book.verified"], "secret_key": "canary_of_16_bytes"}),
            "https://h.example.com/hook",
        ),
        ("ocrolus-account", account("h.example.com"), "https://h.example.com/hook"),
    ] {
        let answer = set_up(&serve, preset, &object).await;
        let record = answer.is(201);
        assert!(!answer.body.contains("canary"), "{preset}: {record}");
        assert!(record.get("not_taken").is_none(), "{preset}: {record}");
        let document = shown(&serve, &answer).await;
        assert_eq!(
            (document["preset"].as_str(), document["request"]["url"].as_str()),
            (Some(preset), Some(url))
        );
        if paperboy::domain::preset::Preset::find(preset).unwrap().import.record.is_empty() {
            assert_eq!(record, document, "ours, where the platform documents no answer");
        }

        let mut odd = object.clone();
        odd["nobody_knows"] = json!("canary");
        odd["name"] = json!("Another one");
        let tenant = format!("preset={preset}&tenant=other");
        let answer = post(&serve, &tenant).json(&odd).send().await.is(201);
        assert!(fields(&answer, "not_taken").contains(&"nobody_knows".to_owned()), "{preset}: {answer}");
        assert!(!answer.to_string().contains("canary"), "{answer}");
    }
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_set_up_is_told_by_the_platforms_own_fields_in_one_round() {
    let app = App::new();
    let serve = app.serve("api").await;
    let mut object = idexa();
    object["type"] = json!(7);
    object["name"] = Value::Null;
    object["url"] = json!("http://localhost:5000/feedback");
    object["headers"] = json!({"Host": "x"});
    object["authorizationMethod"] = json!("BREW");
    let mut faults = fields(&set_up(&serve, "idexa", &object).await.problem(422), "errors");
    faults.sort();
    assert_eq!(faults, ["authorizationMethod", "headers.Host", "name", "type", "url"]);
    // Nothing wrong with its own form, and all with what it asks for.
    let mut object = idexa();
    object["url"] = json!("http://localhost:5000/feedback");
    object["method"] = json!("PATCH");
    let mut faults = fields(&set_up(&serve, "idexa", &object).await.problem(422), "errors");
    faults.sort();
    assert_eq!(faults, ["method", "url"]);

    let local = account("localhost:5000");
    assert_eq!(
        fields(&set_up(&serve, "ocrolus-account", &local).await.problem(422), "errors"),
        ["webhook_endpoint"]
    );
    for (query, field) in [
        ("preset=rosum&tenant=acme", "preset"),
        ("preset=idexa", "tenant"),
        ("preset=idexa&tenant=a%20b", "tenant"),
        ("tenant=acme", "tenant"),
        ("presets=idexa", ""),
    ] {
        let problem = post(&serve, query).json(&idexa()).send().await.problem(400);
        assert_eq!(fields(&problem, "errors"), [field], "{query}");
    }
    assert_eq!(app.json(&["subscription", "list"]).await.len(), 0);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ocrolus_account_is_set_up_or_updated_however_many_ask_at_one_moment() {
    let app = App::new();
    let serve = app.serve("api").await;
    let objects: Vec<Value> = (0..8).map(|n| account(&format!("h{n}.example.com"))).collect();
    let racing = objects.iter().map(|object| set_up(&serve, "ocrolus-account", object));
    let answers = futures_util::future::join_all(racing).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!((created, answers.iter().filter(|answer| answer.status == 200).count()), (1, 7));
    let places: std::collections::BTreeSet<&str> =
        answers.iter().map(|answer| answer.header("location")).collect();
    assert_eq!((places.len(), app.json(&["subscription", "list"]).await.len()), (1, 1));

    let last = set_up(&serve, "ocrolus-account", &account("last.example.com")).await;
    assert_eq!(last.is(200)["request"]["url"], "https://last.example.com/hook");
    assert_eq!(shown(&serve, &last).await["request"]["url"], "https://last.example.com/hook");
    // A second one of ours would be one too many.
    let ours =
        json!({"tenant": "acme", "preset": "ocrolus-account", "request": {"url": "https://h.example.com/"}});
    let refused = ask(serve.port, "POST", "/v1/subscriptions").json(&ours).send().await.problem(409);
    assert!(refused["hint"].as_str().unwrap().contains("PATCH"), "{refused}");
    let audit = app.json(&["audit", "list"]).await;
    assert!(
        audit
            .iter()
            .any(|line| line["action"] == "subscription.update"
                && line["detail"]["preset"] == "ocrolus-account")
    );
    serve.stop().await;
}

async fn one_of_a_type_at_one_moment(app: App) {
    let serve = app.serve("api").await;
    let racing = (0..8).map(|_| set_up(&serve, "idexa", &IDEXA));
    let answers = futures_util::future::join_all(racing).await;
    let made: Vec<&Answered> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!((made.len(), answers.iter().filter(|answer| answer.status == 409).count()), (1, 7));
    let id = made[0].json()["id"].as_str().unwrap().to_owned();
    assert!(answers.iter().all(|answer| answer.body.contains(&id)), "each names the one that is there");

    // The same between processes: nobody looks before somebody else has written.
    std::fs::write(app.path("object.json"), IDEXA.to_string()).unwrap();
    let import =
        ["subscription", "import", "--preset", "idexa", "--tenant", "bolt", "object.json", "--no-wait"];
    let both = futures_util::future::join_all((0..4).map(|_| app.run(&import))).await;
    let mut codes: Vec<Option<i32>> = both.iter().map(|output| output.status.code()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(1), Some(1), Some(1)]);
    serve.stop().await;
}

static IDEXA: std::sync::LazyLock<Value> = std::sync::LazyLock::new(idexa);

#[tokio::test(flavor = "multi_thread")]
async fn of_several_at_one_moment_one_is_made_and_the_others_name_it() {
    one_of_a_type_at_one_moment(App::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_at_one_moment_one_is_made_and_the_others_name_it_in_postgres() {
    one_of_a_type_at_one_moment(App::in_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platforms_object_sent_twice_under_one_key_is_set_up_once_and_answered_the_same() {
    let app = App::new();
    let serve = app.serve("api").await;
    let once = async |query: &str, key: &str, object: &Value| {
        post(&serve, query).header("idempotency-key", key).json(object).send().await
    };
    let (idexa_of, account_of) = ("preset=idexa&tenant=acme", "preset=ocrolus-account&tenant=acme");
    let first = once(idexa_of, "k1", &idexa()).await;
    let again = once(idexa_of, "k1", &idexa()).await;
    assert_eq!((first.is(201), first.header("etag")), (again.is(201), again.header("etag")));
    assert_eq!(first.header("location"), again.header("location"));
    // An update stays one when it is answered again, and is not done again.
    set_up(&serve, "ocrolus-account", &account("a.example.com")).await.is(201);
    let update = once(account_of, "k2", &account("b.example.com")).await;
    set_up(&serve, "ocrolus-account", &account("c.example.com")).await.is(200);
    let again = once(account_of, "k2", &account("b.example.com")).await;
    assert_eq!((update.is(200), update.header("etag")), (again.is(200), again.header("etag")));
    assert_eq!(shown(&serve, &again).await["request"]["url"], "https://c.example.com/hook");
    // The platform is part of the request.
    once("preset=idexa&tenant=bolt", "k1", &idexa()).await.problem(422);
    let racing = (0..6).map(|_| once("preset=rossum&tenant=acme", "k3", &ROSSUM));
    let answers = futures_util::future::join_all(racing).await;
    let places: std::collections::BTreeSet<&str> =
        answers.iter().map(|answer| answer.header("location")).collect();
    assert!(answers.iter().all(|answer| answer.status == 201) && places.len() == 1, "{answers:?}");
    serve.stop().await;
}

static ROSSUM: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| {
    json!({"type": "webhook", "name": "h", "queues": ["8236"], "events": ["annotation_content.initialize"],
        "config": {"url": "https://h.example/x", "secret": "s3cret"}})
});

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_key_sets_up_its_own_and_the_command_goes_the_same_way() {
    let app = App::new();
    app.migrate().await;
    let key = app.json(&["key", "create", "--tenant", "acme"]).await.remove(0);
    let key = key["key"].as_str().unwrap();
    let serve = app.serve("api").await;
    eventually("the key is known", 10, async || {
        ask(serve.port, "GET", "/v1/subscriptions").key(key).send().await.status == 200
    })
    .await;
    let record = post(&serve, "preset=idexa").key(key).json(&idexa()).send().await.is(201);
    assert_eq!(record["clientId"], "acme");
    post(&serve, "preset=idexa&tenant=bolt").key(key).json(&idexa()).send().await.problem(403);
    post(&serve, "preset=idexa&tenant=acme").key(key).json(&idexa()).send().await.problem(409);

    std::fs::write(app.path("hook.json"), json!([*ROSSUM, account("h.example.com")]).to_string()).unwrap();
    std::fs::write(app.path("account.json"), account("h.example.com").to_string()).unwrap();
    let url = format!("http://127.0.0.1:{}", serve.port);
    let import = async |preset: &str, file: &str| {
        let mut command =
            app.command(&["subscription", "import", "--preset", preset, file, "--json", "--api", &url]);
        command.env("PAPERBOY_API_KEY", key);
        command.output().await.unwrap()
    };
    for status in ["created", "updated"] {
        let output = import("ocrolus-account", "account.json").await;
        let line: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (line["status"].as_str(), line["tenant"].as_str()),
            (Some(status), Some("acme")),
            "{line}"
        );
        assert_eq!((&line["not_taken"], &line["answer"]["id"]), (&json!([]), &line["id"]), "{line}");
    }
    // What was set up before one that is refused stays, and is told.
    let output = import("rossum", "hook.json").await;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("`config.url`") && !told.contains("canary"), "{told}");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_change_what_is_there_keep_to_one_of_a_type_too() {
    let app = App::new();
    app.migrate().await;
    let document = |name: &str, kind: &str| json!({"tenant": "acme", "preset": "idexa", "name": name, "events": [kind], "request": {"url": "https://h.example/:id"}});
    let first = app.subscribe(document("first", "document.processed")).await.id;
    let other = app.subscribe(document("other", "batch.completed")).await.id;
    let file = |documents: &Value| std::fs::write(app.path("all.json"), documents.to_string()).unwrap();
    let both = json!([document("first", "document.processed"), document("other", "document.finished")]);
    file(&both);
    for arguments in [
        &["subscription", "update", &other, "--events", "document.finished", "--no-wait"][..],
        &["subscription", "apply", "all.json", "--dry-run"],
        &["subscription", "apply", "all.json", "--yes"],
    ] {
        let refused = app.run(arguments).await;
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(told.contains("IDEXA takes one webhook of this type"), "{told}");
    }
    // One goes, and the other takes its place in the same step.
    file(&json!([document("other", "document.finished")]));
    app.ok(&["subscription", "apply", "all.json", "--prune", "--yes", "--no-wait"]).await;
    let listed = app.json(&["subscription", "list"]).await;
    assert_eq!((listed.len(), listed[0]["id"].as_str()), (1, Some(&*other)));
    assert_ne!(first, other);

    // Two that are there together, from before there was such a rule, can still be mended.
    app.subscribe(document("third", "batch.completed")).await;
    app.sql("UPDATE subscriptions SET document = replace(document, 'batch.completed', 'document.finished')")
        .await;
    app.ok(&["subscription", "update", &other, "--name", "renamed", "--no-wait"]).await;
}
