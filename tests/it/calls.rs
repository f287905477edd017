//! Calls: events whose publisher waits for what the receivers say, once, whatever comes of it.

use std::time::Duration;

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::app::{event, subscription};
use crate::support::document::example;
use crate::support::{App, Caller, Receiver, Reply, ask, eventually};

const KIND: &str = "annotation_content.user_update";

/// A subscription that is asked, and gets nothing else.
fn interactive(url: &str) -> Value {
    let mut document = subscription("acme", url);
    document["events"] = json!([]);
    document["interactive"] = json!(["annotation_content.*"]);
    document
}

/// A subscription that only gets the events.
fn ordinary(url: &str) -> Value {
    let mut document = subscription("acme", url);
    document["events"] = json!(["annotation_content.*"]);
    document
}

fn call_event(id: &str) -> Vec<u8> {
    event(id, "acme", KIND)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subscription_that_is_asked_answers_once_and_the_ordinary_ones_get_the_event() {
    let app = App::new();
    let receiver = Receiver::start(|hit| match hit.path.as_str() {
        "/one" => Reply::status(200).header("content-type", "application/json").header("set-cookie", "s=1").body(
            r#"{"messages": [], "operations": [{"op": "replace", "id": 4, "value": {"content": {"value": 0.0}}}]}"#,
        ),
        "/two" => Reply::status(422).body(r#"{"messages":[{"type":"error","content":"no rate"}]}"#),
        _ => Reply::status(200).body("taken"),
    })
    .await;
    let serve = app.serve("all").await;
    let mut caller = Caller::direct(&app).await;

    let nobody = caller.call(KIND, &call_event("evt_0")).await;
    assert_eq!((nobody.len(), nobody[0].header("paperboy-replies")), (1, Some(0)));
    assert_eq!(nobody[0].json["error"], "no subscriber");

    let one = app.subscribe(interactive(&receiver.url("/one"))).await;
    let said = caller.call(KIND, &call_event("evt_1")).await;
    assert_eq!((said.len(), said[0].header("paperboy-replies")), (1, Some(1)));
    let answer = &said[0].json;
    assert_eq!((&answer["subscription"], &answer["status"]), (&json!(one.id), &json!(200)));
    assert_eq!(answer["headers"]["content-type"], "application/json");
    assert!(answer["headers"].get("set-cookie").is_none() && answer["ms"].is_u64(), "{answer}");
    assert!(
        said[0].text.contains(r#""value": {"content": {"value": 0.0}}"#),
        "as it was written: {}",
        said[0].text
    );
    assert!(receiver.hits()[0].is_signed_with(&one.secret));

    let two = app.subscribe(interactive(&receiver.url("/two"))).await;
    app.subscribe(ordinary(&receiver.url("/ordinary"))).await;
    let mut queued = Caller::with_queue(&app).await;
    let said = queued.call(KIND, &call_event("evt_2")).await;
    let mut ids: Vec<_> = said.iter().map(|one| one.json["subscription"].as_str().unwrap()).collect();
    ids.sort_unstable();
    let mut expected = [one.id.as_str(), two.id.as_str()];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    let refused = said.iter().find(|said| said.json["subscription"] == two.id.as_str()).unwrap();
    assert_eq!(refused.json["status"], 422);
    assert_eq!(refused.json["body"]["messages"][0]["content"], "no rate", "messages come with a refusal too");

    let hits = receiver.wait_for(4, 10).await;
    let of = |path: &str, id: &str| hits.iter().filter(|hit| hit.path == path && hit.id() == id).count();
    assert_eq!((of("/one", "evt_2"), of("/two", "evt_2"), of("/ordinary", "evt_2")), (1, 1, 1));
    eventually("every call is in the balance", 10, || async {
        serve.metric("paperboy_settled_total", "answered").await > 2.5
            && serve.metric("paperboy_in_hand", "").await < 0.5
    })
    .await;
    eventually("the delivery log has what was not taken", 10, || async {
        let log = app.json(&["deliveries", "list", "--tenant", "acme"]).await;
        log.iter().any(|row| row["what"] == "answered" && row["status"] == 422)
    })
    .await;
    assert_eq!(app.json(&["dead", "list"]).await, Vec::<Value>::new());
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_costs_the_caller_its_own_time_and_nobody_else_anything() {
    let app = App::new();
    let receiver = Receiver::start(|hit| match hit.path.as_str() {
        "/hangs" => Reply::status(200).after(Duration::from_secs(60)),
        _ => Reply::status(200).body("{}"),
    })
    .await;
    let serve = app.serve("all").await;
    let slow = app.subscribe(interactive(&receiver.url("/hangs"))).await;
    app.subscribe(interactive(&receiver.url("/quick"))).await;
    let mut caller = Caller::with_queue(&app).await;
    let properties = caller.asking("c").with_expiration("700".into());
    caller.send(KIND, &call_event("evt_1"), properties).await;
    let (first, second) = (caller.hear().await, caller.hear().await);
    assert_eq!(
        (&first.json["status"], first.json.get("error")),
        (&json!(200), None),
        "the quick one is not held up"
    );
    assert_eq!((&second.json["subscription"], &second.json["error"]), (&json!(slow.id), &json!("timeout")));
    assert!(second.json["ms"].as_u64().unwrap() >= 600, "{}", second.json);
    assert_eq!(
        receiver.hits().iter().filter(|hit| hit.path == "/hangs").count(),
        0,
        "long before it answers"
    );
    // Its own `timeout_s` counts too.
    let gone = app.subscribe(interactive("http://127.0.0.1:9/refused")).await;
    caller.send(KIND, &call_event("evt_2"), caller.asking("d").with_expiration("700".into())).await;
    let said = [caller.hear().await, caller.hear().await, caller.hear().await];
    let refused = said.iter().find(|said| said.json["subscription"] == gone.id.as_str()).unwrap();
    assert_eq!(refused.json["error"], "connect");
    assert!(said.iter().all(|said| said.header("paperboy-replies") == Some(3)));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivered_call_is_answered_as_interrupted_and_made_by_nobody() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200).body("{}")).await;
    app.migrate().await;
    app.subscribe(interactive(&receiver.url("/asked"))).await;
    app.subscribe(ordinary(&receiver.url("/ordinary"))).await;
    app.ok(&["topology", "declare"]).await;
    let mut caller = Caller::with_queue(&app).await;
    caller.send(KIND, &call_event("evt_1"), caller.asking("c1")).await;
    assert_eq!(app.amqp().await.give_back("calls", 1).await, 1, "somebody had it and crashed");
    let serve = app.serve("all").await;
    let said = caller.hear().await;
    assert_eq!((&said.json["error"], said.correlation()), (&json!("interrupted"), "c1"));
    assert_eq!(said.header("paperboy-replies"), Some(1));
    // Nobody knows whether the one before came so far.
    let hits = receiver.wait_for(1, 10).await;
    assert_eq!(hits.iter().map(|hit| hit.path.as_str()).collect::<Vec<_>>(), ["/ordinary"]);
    let said = caller.call(KIND, &call_event("evt_2")).await;
    assert_eq!(said[0].json["status"], 200, "the next one is made");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_reply_to_harms_nobody() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200).body("{}")).await;
    let serve = app.serve("all").await;
    app.subscribe(interactive(&receiver.url("/asked"))).await;
    let mut other = subscription("acme", &receiver.url("/ordinary"));
    other["events"] = json!(["document.*"]);
    app.subscribe(other).await;
    let (amqp, mut caller) = (app.amqp().await, Caller::direct(&app).await);
    assert_eq!(caller.call(KIND, &call_event("evt_0")).await.len(), 1);

    let own =
        ["retries", "events", "dead.events", "delay.20ms.03"].map(|name| format!("{}.{name}", app.prefix));
    let hostile = own.iter().map(String::as_str).chain([
        // Closes the connection it is used on.
        "amq.rabbitmq.reply-to.bogus.xyz",
        "amq.rabbitmq.reply-to.g2dkAA==",
        "amq.rabbitmq.reply-to.",
        "nobody.has.this.queue",
    ]);
    for (round, reply_to) in (0..3).flat_map(|round| hostile.clone().map(move |name| (round, name))) {
        let id = format!("evt_{round}_{}", reply_to.replace(['=', '/'], "_"));
        let properties = BasicProperties::default().with_reply_to(reply_to.into());
        caller.send(KIND, &call_event(&id), properties).await;
        let ordinary = event(&format!("doc_{id}"), "acme", "document.processed");
        amqp.publish("document.processed", &ordinary, BasicProperties::default()).await;
        // An honest caller beside each of them, through the same connection.
        let said = caller.call(KIND, &call_event(&format!("honest_{id}"))).await;
        assert_eq!((said.len(), &said[0].json["status"]), (1, &json!(200)), "{reply_to}: {said:?}");
    }
    // 24 hostile and 24 honest calls, the first one, and 24 ordinary events.
    let hits = receiver.wait_for(73, 30).await;
    assert_eq!(hits.iter().filter(|hit| hit.path == "/ordinary").count(), 24);
    eventually("hostile answers are counted", 30, || async {
        serve.metric("paperboy_replies_total", "own_queue").await > 11.5
            && serve.metric("paperboy_replies_total", "dropped").await > 2.5
    })
    .await;
    assert_eq!(serve.metric("paperboy_replies_total", "own_queue").await as u64, 12);
    let log = serve.log();
    assert!(!log.contains("publishing connection is gone") && !log.contains("is interrupted"), "{log}");
    assert!(serve.is_ready().await);
    assert_eq!(receiver.count(), 73, "nothing came twice");
    assert_eq!(app.json(&["dead", "list"]).await, Vec::<Value>::new());
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_no_event_is_answered_and_no_dead_letter() {
    let mut app = App::new();
    app.set("LIMITS__EVENT_BYTES_MAX", "2000");
    let receiver = Receiver::start(|_| Reply::status(200).body("{}")).await;
    let serve = app.serve("all").await;
    app.subscribe(interactive(&receiver.url("/asked"))).await;
    let mut caller = Caller::with_queue(&app).await;
    let large = json!({"id": "e", "type": KIND, "tenant": "acme", "data": "x".repeat(3_000)}).to_string();
    for body in ["", "nope", r#"{"id": "e", "type": "a.b"}"#, &large] {
        let said = caller.call(KIND, body.as_bytes()).await;
        assert_eq!((said.len(), &said[0].json["error"]), (1, &json!("unreadable")), "{body}");
        assert_eq!(said[0].header("paperboy-replies"), Some(1));
    }
    // Headers that look like ours are a stranger's; id and type may stand beside the body.
    app.subscribe(ordinary(&receiver.url("/ordinary"))).await;
    let mut headers = lapin::types::FieldTable::default();
    headers.insert("paperboy-attempt".into(), lapin::types::AMQPValue::LongLongInt(9));
    let properties = caller.asking("c").with_message_id("evt_beside".into()).with_headers(headers);
    caller.send(KIND, br#"{"tenant": "acme", "data": 1}"#, properties).await;
    assert_eq!(caller.hear().await.json["status"], 200);
    let hits = receiver.wait_for(2, 10).await;
    assert!(
        hits.iter().all(|hit| hit.id() == "evt_beside" && hit.header("paperboy-attempt") == "1"),
        "{hits:?}"
    );
    assert_eq!((receiver.count(), app.amqp().await.ready("dead.events").await), (2, Some(0)));
    assert_eq!(app.json(&["dead", "list"]).await, Vec::<Value>::new());
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_large_or_no_json_reach_the_caller_for_what_they_are() {
    let app = App::new();
    let receiver = Receiver::start(|hit| match hit.path.as_str() {
        "/large" => Reply::status(200).body("x".repeat((1 << 20) + 1)),
        "/most" => Reply::status(200).body("x".repeat(1 << 20)),
        _ => Reply::status(204),
    })
    .await;
    let serve = app.serve("all").await;
    let mut ids = Vec::new();
    for path in ["/large", "/most", "/empty"] {
        ids.push(app.subscribe(interactive(&receiver.url(path))).await.id);
    }
    let said = Caller::with_queue(&app).await.call(KIND, &call_event("evt_1")).await;
    let of = |id: &String| &said.iter().find(|said| said.json["subscription"] == id.as_str()).unwrap().json;
    assert_eq!((&of(&ids[0])["status"], &of(&ids[0])["error"]), (&json!(200), &json!("too large")));
    assert_eq!(
        (of(&ids[1])["body"].as_str().unwrap().len(), &of(&ids[1])["body_encoding"]),
        (1 << 20, &json!("text"))
    );
    assert_eq!((&of(&ids[2])["status"], &of(&ids[2])["body"]), (&json!(204), &json!("")));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_http_needs_no_worker_and_answers_with_a_list() {
    let app = App::new();
    let receiver = Receiver::start(|hit| match hit.path.as_str() {
        "/hangs" => Reply::status(200).after(Duration::from_secs(60)),
        "/refuses" => Reply::status(422).body(r#"{"messages": [{"content": "no rate"}]}"#),
        _ => Reply::status(200).body(r#"{"n": 1.50}"#),
    })
    .await;
    let serve = app.serve("api").await;
    let call = |id: &str| ask(serve.port, "POST", "/v1/calls").body("application/json", &call_event(id));
    let none = call("evt_0").send().await.is(200);
    assert_eq!(none, json!({"id": "evt_0", "data": []}));

    app.subscribe(interactive(&receiver.url("/takes"))).await;
    app.subscribe(interactive(&receiver.url("/refuses"))).await;
    app.subscribe(ordinary(&receiver.url("/ordinary"))).await;
    let answered = call("evt_1").send().await;
    assert!(answered.body.contains(r#""body":{"n": 1.50}"#), "as it was written: {}", answered.body);
    let said = answered.is(200)["data"].as_array().unwrap().clone();
    let mut statuses: Vec<_> = said.iter().map(|one| one["status"].as_u64().unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 422]);
    assert_eq!(app.amqp().await.ready("deliveries").await, Some(1), "for a worker, when there is one");
    eventually("each that was asked is in the delivery log", 10, || async {
        let log = app.json(&["deliveries", "list", "--tenant", "acme"]).await;
        let has = |what: &str, status: u64| {
            log.iter().filter(|row| row["what"] == what && row["status"] == status).count()
        };
        (has("delivered", 200), has("answered", 422)) == (1, 1)
    })
    .await;
    assert_eq!(serve.metric("paperboy_attempts_total", "refused").await, 1.0);
    assert_eq!(receiver.count(), 2);

    app.subscribe(interactive(&receiver.url("/hangs"))).await;
    let said =
        call("evt_2").header("prefer", "wait=1").send().await.is(200)["data"].as_array().unwrap().clone();
    assert_eq!(said.iter().filter(|one| one["error"] == "timeout").count(), 1, "{said:?}");
    assert_eq!(said.len(), 3);

    let problem =
        ask(serve.port, "POST", "/v1/calls").json(&json!({"id": 7, "type": KIND})).send().await.problem(422);
    assert!(problem["errors"].as_array().unwrap().len() >= 2, "{problem}");
    ask(serve.port, "POST", "/v1/calls").body("application/json", b"nope").send().await.problem(400);
    let worker = app.serve("worker").await;
    let hits = receiver.wait_for(6, 20).await;
    assert_eq!(hits.iter().filter(|hit| hit.path == "/ordinary").count(), 2);
    worker.stop().await;
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_key_calls_for_its_own_tenant_only() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200).body("{}")).await;
    let serve = app.serve("all").await;
    app.subscribe(interactive(&receiver.url("/acme"))).await;
    let key = |tenant: &str, scopes: &str| {
        let arguments =
            ["key", "create", "--json", "--tenant", tenant, "--scopes", scopes].map(str::to_owned).to_vec();
        let app = &app;
        async move {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            let made: Value = serde_json::from_str(&app.ok(&arguments).await).unwrap();
            made["key"].as_str().unwrap().to_owned()
        }
    };
    let (acme, bolt, reader) =
        (key("acme", "publish").await, key("bolt", "publish").await, key("acme", "read").await);
    let call = |key: &str, body: &Value| ask(serve.port, "POST", "/v1/calls").key(key).json(body);
    let nameless = json!({"id": "evt_1", "type": KIND, "data": 1});
    eventually("the keys are known", 10, async || call(&acme, &nameless).send().await.status == 200).await;
    let hits = receiver.count();
    let foreign = json!({"id": "evt_2", "type": KIND, "tenant": "acme"});
    call(&bolt, &foreign).send().await.problem(403);
    call(&reader, &nameless).send().await.problem(403);
    assert_eq!(
        call(&bolt, &nameless).send().await.is(200)["data"],
        json!([]),
        "its own, which has no subscriber"
    );
    assert_eq!(receiver.count(), hits);
    assert_eq!(call(&acme, &nameless).send().await.is(200)["data"].as_array().unwrap().len(), 1);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_calls_and_is_answered() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200).body(r#"{"messages": ["seen"]}"#)).await;
    let serve = app.serve("all").await;
    let run = async || {
        let mut command = app.command_of(&example("caller").display().to_string());
        command.env("AMQP_URL", app.setting("BROKER__URL")).env("EXCHANGE", format!("{}.calls", app.prefix));
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let nobody = run().await;
    assert_eq!((nobody.len(), &nobody[0]["error"]), (1, &json!("no subscriber")));
    app.subscribe_all(&[interactive(&receiver.url("/1")), interactive(&receiver.url("/2"))]).await;
    let said = run().await;
    assert_eq!(said.len(), 2);
    assert!(said.iter().all(|one| one["body"]["messages"][0] == "seen"), "{said:?}");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_answered_before_the_process_stops() {
    let mut app = App::new();
    app.set("DELIVERY__GRACE_S", "3");
    let receiver = Receiver::start(|hit| match hit.path.as_str() {
        "/soon" => Reply::status(200).body("{}").after(Duration::from_secs(1)),
        _ => Reply::status(200).after(Duration::from_secs(60)),
    })
    .await;
    let serve = app.serve("all").await;
    let soon = app.subscribe(interactive(&receiver.url("/soon"))).await;
    let never = app.subscribe(interactive(&receiver.url("/never"))).await;
    let mut caller = Caller::with_queue(&app).await;
    caller.send(KIND, &call_event("evt_1"), caller.asking("c")).await;
    eventually("the call is in hand", 10, || async {
        serve.metric("paperboy_calls_total", "answered").await > 0.5
    })
    .await;
    let stopping = serve.stop();
    let hearing = async { [caller.hear().await, caller.hear().await] };
    let ((), said) = tokio::join!(stopping, hearing);
    assert_eq!((&said[0].json["subscription"], &said[0].json["status"]), (&json!(soon.id), &json!(200)));
    assert_eq!(
        (&said[1].json["subscription"], &said[1].json["error"]),
        (&json!(never.id), &json!("interrupted"))
    );
    assert_eq!(app.amqp().await.ready("calls").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_leave_room_for_other_subscriptions_and_tenants() {
    let app = App::new();
    let receiver = Receiver::start(|hit| match hit.path.as_str() {
        "/quick" => Reply::status(200).body("{}"),
        _ => Reply::status(200).after(Duration::from_secs(60)),
    })
    .await;
    let serve = app.serve("all").await;
    let on = |tenant: &str, word: &str, path: &str| {
        let mut document = interactive(&receiver.url(path));
        (document["tenant"], document["interactive"]) = (json!(tenant), json!([word]));
        app.subscribe(document)
    };
    let one = on("acme", "field.one", "/hangs").await;
    on("acme", "field.two", "/hangs/too").await;
    on("acme", "field.quick", "/quick").await;
    on("bolt", "field.quick", "/quick").await;
    let (mut caller, mut other) = (Caller::with_queue(&app).await, Caller::with_queue(&app).await);
    for n in 0..40 {
        let event = event(&format!("one_{n}"), "acme", "field.one");
        caller.send("field.one", &event, caller.asking("c")).await;
    }
    // Eight are more than one subscription may keep waiting; they are told at once.
    for _ in 0..8 {
        let said = caller.hear().await.json;
        assert_eq!((&said["error"], &said["subscription"]), (&json!("busy"), &json!(one.id)));
    }
    let quick = |tenant: &str| event("quick", tenant, "field.quick");
    assert_eq!(
        other.call("field.quick", &quick("acme")).await[0].json["status"],
        200,
        "room for its tenant's"
    );

    // With two of them the tenant has all that it may, and nobody of it is asked.
    for n in 0..32 {
        let event = event(&format!("two_{n}"), "acme", "field.two");
        caller.send("field.two", &event, caller.asking("c")).await;
    }
    eventually("acknowledged calls are in hand all the same", 10, || async {
        (63.5..64.5).contains(&serve.metric("paperboy_in_hand", "").await)
    })
    .await;
    let said = &other.call("field.quick", &quick("acme")).await[0];
    assert_eq!((&said.json["error"], said.json.get("subscription")), (&json!("busy"), None));
    assert_eq!(other.call("field.quick", &quick("bolt")).await[0].json["status"], 200, "room for others");
    assert_eq!(app.amqp().await.ready("calls").await, Some(0));
    serve.kill().await;
}
