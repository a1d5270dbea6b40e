//! Drives the client that progenitor makes: ../steps.ts says what each step does.

use std::error::Error;
use std::fmt::Debug;
use std::num::NonZeroU64;
use std::time::Duration;

use futures::TryStreamExt;
use progenitor_client::{ByteStream, Error as Failure, ResponseValue};
use report::{arguments, nothing, step, want};
use tensord::Client;
use tensord::types::builder;
use tensord::types::*;

mod report;

mod tensord {
    progenitor::generate_api!(spec = "openapi-3.0.yaml", interface = Builder);
}

/// A failure is bytes, since it is no `application/json`, and progenitor knows no other JSON.
type Answer<Value> = Result<ResponseValue<Value>, Failure<ByteStream>>;

/// progenitor's own client gives up after 15 s, in which a machine that is busy with something else allocates no 4 GiB.
fn connect(url: &str) -> Client {
    let patient = reqwest::Client::builder().timeout(Duration::from_secs(180)).build().expect("a client");
    Client::new_with_client(url, patient)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (url, tomorrow_url, large_bytes) = arguments();
    let api = connect(&url);
    let opening = api.open_session().body_map(|body| body.ttl_ms(60_000));
    let session = opening.send().await.expect("a session").id.to_string();

    let tensors: Vec<TensorRequest> = [("w", Dtype::Bf16, vec![2, 3]), ("b", Dtype::F32, vec![3])]
        .into_iter()
        .map(|(name, dtype, shape)| TensorRequest {
            name: name.parse().expect("a name"),
            dtype,
            shape,
            alias_of: None,
            alias_byte_offset: None,
        })
        .collect();
    let weights = || named("weights").tensors(tensors.clone()).session(of::<CreateRegionSession>(&session));
    let with_ttl = || CreateRegion::builder().ttl_ms(NonZeroU64::new(60_000));
    let mut region = None;

    step("create", async {
        let created = create(&api, weights()).await?.into_inner();
        want("owner.kind", created.owner.kind.as_str(), "session")?;
        want("session", created.session.as_ref(), Some(&session))?;
        want("tensors", created.tensors.len(), 2)?;
        want("w.byte_size", created.tensors[0].byte_size, 12)?;
        region = Some(created);
        nothing()
    })
    .await;
    let Some(mut region) = region else { return };
    step("checksum-null", async {
        want("there is a checksum", region.checksum.is_some(), false)?;
        nothing()
    })
    .await;
    step("get", async {
        let detail = get(&api, &region.id).await?;
        want("id", detail.id.as_str(), region.id.as_str())?;
        want("b.name", detail.tensors[1].name.as_str(), "b")?;
        nothing()
    })
    .await;
    step("get-by-name", async {
        let detail = api.get_region_by_name().model("default").name("weights").send().await?;
        want("id", detail.id.as_str(), region.id.as_str())?;
        nothing()
    })
    .await;
    step("list", async {
        let page = api.list_regions().model(of::<ListRegionsModel>("default")).send().await?;
        want("items", page.items.len(), 1)?;
        want("id", page.items[0].id.as_str(), region.id.as_str())?;
        want("next_cursor", page.next_cursor.as_deref(), None)?;
        nothing()
    })
    .await;
    step("change", async {
        let changed = change(&api, &region.id).await?;
        want("revision", changed.revision, 2)?;
        want("labels.job", changed.labels["job"].as_str(), "nightly")?;
        nothing()
    })
    .await;
    step("stale", async {
        problem_of(change(&api, &region.id).await, 412, "revision-mismatch").await?;
        nothing()
    })
    .await;
    step("seal", async {
        let sealing = api.seal_region().region(region.id.as_str()).body_map(|body| body.checksum(true));
        region = sealing.send().await?.into_inner();
        want("state", region.state, RegionState::Sealed)?;
        nothing()
    })
    .await;
    step("checksum", async {
        let checksum = region.checksum.as_ref().ok_or("there is none")?;
        want("algorithm", checksum.algorithm.as_str(), "xxh3-64-tree")?;
        want("value's length", checksum.value.len(), 16)?;
        nothing()
    })
    .await;
    step("not-found", async {
        problem_of(get(&api, "reg_missingmissingmissingmissi").await, 404, "region-not-found").await?;
        nothing()
    })
    .await;
    step("name-taken", async {
        problem_of(create(&api, weights()).await, 409, "name-taken").await?;
        nothing()
    })
    .await;
    step("invalid", async {
        let labels = [(String::new(), "x".to_string())].into();
        let answer = create(&api, weights().labels::<std::collections::HashMap<_, _>>(labels)).await;
        Ok(problem_of(answer, 422, "validation-failed").await?.issues[0].path.clone())
    })
    .await;
    step("full", async {
        let problem = problem_of(create(&api, with_ttl().byte_size(1 << 50)).await, 507, "pool-full").await?;
        let requested = problem.requested_bytes.ok_or("no requested_bytes")?;
        let available = problem.available_bytes.ok_or("no available_bytes")?;
        Ok(format!("{} {requested} {available}", problem.code))
    })
    .await;
    if large_bytes > 0 {
        step("large", async {
            let large = create(&api, with_ttl().byte_size(large_bytes)).await?;
            api.delete_region().region(large.id.as_str()).send().await?;
            Ok(format!("{} {}", large.tensors[0].byte_size, large.storage.byte_size))
        })
        .await;
    }
    step("persist", async {
        let kept = create(&api, named("kept").persist(true).byte_size(64)).await?;
        want("owner.kind", kept.owner.kind.as_str(), "persist")?;
        let deletion = api.delete_region().region(kept.id.as_str()).send().await?;
        want("state", deletion.state, DeletionState::Deleted)?;
        nothing()
    })
    .await;
    step("epoch", async { Ok(api.get_stats().send().await?.epoch.to_string()) }).await;
    step("tomorrow", async {
        let tomorrows = connect(&tomorrow_url);
        let later = create(&tomorrows, with_ttl().tensors(tensors.clone())).await?;
        let answer = get(&tomorrows, "reg_missingmissingmissingmissi").await;
        let code = problem_of(answer, 404, "region-not-found-of-tomorrow").await?.code;
        Ok(format!("{} {} {} {code}", later.owner.kind, later.storage.kind, later.tensors[0].dtype))
    })
    .await;
    step("end", async {
        want("regions", api.end_session().session(session.as_str()).send().await?.regions, 1)?;
        nothing()
    })
    .await;
}

/// A word that follows the document's pattern, which is a type of its own.
fn of<Word: std::str::FromStr<Err: Debug>>(text: &str) -> Word {
    text.parse().expect("a word that follows the pattern")
}

fn named(name: &str) -> builder::CreateRegion {
    CreateRegion::builder().model(of::<CreateRegionModel>("default")).name(of::<CreateRegionName>(name))
}

async fn create(api: &Client, request: builder::CreateRegion) -> Answer<Region> {
    api.create_region().body(request).send().await
}

async fn get(api: &Client, id: &str) -> Answer<RegionDetail> {
    api.get_region().region(id).send().await
}

async fn change(api: &Client, id: &str) -> Answer<Region> {
    let labels = std::collections::HashMap::from([("job".to_string(), Some("nightly".to_string()))]);
    api.change_region().region(id).if_match("\"1\"").body_map(|body| body.labels(labels)).send().await
}

/// The Problem of a refusal, as the client's type has it.
async fn problem_of<Value: Debug>(answer: Answer<Value>, status: u16, code: &str) -> Result<Problem, Box<dyn Error>> {
    match answer {
        Err(Failure::ErrorResponse(response)) => {
            want("status", response.status().as_u16(), status)?;
            let bytes: Vec<_> = response.into_inner().into_inner().try_collect().await?;
            let problem: Problem = serde_json::from_slice(&bytes.concat())?;
            want("status in the Problem", i64::from(problem.status), i64::from(status))?;
            want("code", problem.code.as_str(), code)?;
            Ok(problem)
        }
        other => Err(format!("want {status}, got {other:?}").into()),
    }
}
