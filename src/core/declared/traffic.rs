//! Rules of `traffic`, `mirror_traffic` and `default` of an endpoint.

use serde_json::{Number, Value};

use super::{DeclaredEndpoint, Document, Refusal, is_unproven};
use crate::core::route::Percent;
use crate::core::settings::Name;
use crate::core::suggest;

/// Most of the traffic that may be mirrored, in percent (reference §1.6).
const MOST_MIRRORED: f64 = 50.0;

/// Shares of the deployments that have one, in percent, by the names as they are declared.
pub fn shares(endpoint: &DeclaredEndpoint) -> impl Iterator<Item = (&str, f64)> {
    percentages(&endpoint.document, "traffic")
}

fn percentages<'d>(document: &'d Document, key: &str) -> impl Iterator<Item = (&'d str, f64)> {
    let map = document.get(key).and_then(Value::as_object);
    map.into_iter().flatten().map(|(name, share)| (name.as_str(), share.as_f64().unwrap_or(0.0)))
}

/// Brings the three keys into their one form (declared names, no zeros) and checks them. What `before` gave may stay.
pub(super) fn settle(endpoint: &mut DeclaredEndpoint, before: &Document) -> Result<(), Refusal> {
    let total = settle_map(endpoint, "traffic")?;
    if endpoint.is_v1() {
        if total > 100.0 {
            let message = format!("`traffic` adds up to {total} %; at most 100 % can be given away");
            return Err(Refusal::invalid(message));
        }
    } else if total != 0.0 && total != 100.0 {
        let message = format!("`traffic` adds up to {total} %; the total must be 0 or 100");
        return Err(Refusal::invalid(message));
    }
    settle_default(endpoint)?;
    for (name, share) in shares(endpoint) {
        let had =
            percentages(before, "traffic").find(|(known, _)| *known == name).map_or(0.0, |(_, share)| share);
        if share > had {
            can_serve(endpoint, name)?;
        }
    }
    if let Some(default) =
        endpoint.document.get("default").filter(|default| before.get("default") != Some(default))
    {
        can_serve(endpoint, default.as_str().unwrap_or_default())?;
    }
    settle_mirror(endpoint)
}

fn can_serve(endpoint: &DeclaredEndpoint, name: &str) -> Result<(), Refusal> {
    match endpoint.deployments.get(name) {
        Some(document) if is_unproven(document) => Err(Refusal::invalid(format!(
            "deployment `{name}` has not been ready yet and cannot take traffic: wait until it is created, or update it if \
             it has failed"
        ))),
        _ => Ok(()),
    }
}

/// The total.
fn settle_map(endpoint: &mut DeclaredEndpoint, key: &str) -> Result<f64, Refusal> {
    let Some(Value::Object(map)) = endpoint.document.get(key) else { return Ok(0.0) };
    let (mut settled, mut total) = (Document::new(), 0.0);
    for (name, share) in map {
        let Some((known, _)) = endpoint.deployment(name) else {
            return Err(unknown(endpoint, key, name));
        };
        let percent = share.as_f64().and_then(Percent::new);
        let Some(percent) = percent.filter(|percent| endpoint.is_v1() || is_whole(*percent)) else {
            let whole = if endpoint.is_v1() { "with at most two decimals" } else { "a whole number" };
            let message =
                format!("`{key}.{name}` is {share}; it must be a percentage from 0 to 100, {whole}");
            return Err(Refusal::invalid(message));
        };
        if percent.parts() > 0 && settled.insert(known.to_string(), number(percent)).is_some() {
            return Err(Refusal::invalid(format!("`{key}` names deployment `{known}` twice")));
        }
        total += f64::from(percent.parts());
    }
    endpoint.document.insert(key.to_owned(), Value::Object(settled));
    Ok(total / 100.0)
}

fn is_whole(percent: Percent) -> bool {
    percent.parts().is_multiple_of(100)
}

fn number(percent: Percent) -> Value {
    match is_whole(percent) {
        true => Value::from(percent.parts() / 100),
        false => Number::from_f64(percent.as_f64()).map_or(Value::Null, Value::Number),
    }
}

fn settle_default(endpoint: &mut DeclaredEndpoint) -> Result<(), Refusal> {
    let Some(name) = endpoint.document.get("default").and_then(Value::as_str) else { return Ok(()) };
    let Some((known, _)) = endpoint.deployment(name) else { return Err(unknown(endpoint, "default", name)) };
    let known = known.to_string();
    endpoint.document.insert("default".to_owned(), Value::String(known));
    Ok(())
}

fn settle_mirror(endpoint: &mut DeclaredEndpoint) -> Result<(), Refusal> {
    settle_map(endpoint, "mirror_traffic")?;
    let mirrored: Vec<_> = percentages(&endpoint.document, "mirror_traffic").collect();
    match mirrored.as_slice() {
        [] => Ok(()),
        [(_, share)] if *share > MOST_MIRRORED => Err(Refusal::invalid(format!(
            "`mirror_traffic` is {share} %; at most {MOST_MIRRORED} % can be mirrored"
        ))),
        [(name, _)] if shares(endpoint).any(|(live, _)| live == *name) => Err(Refusal::invalid(format!(
            "deployment `{name}` holds live traffic; only one without can have mirrored traffic"
        ))),
        [_] => Ok(()),
        _ => Err(Refusal::invalid("`mirror_traffic` may name one deployment only")),
    }
}

fn unknown(endpoint: &DeclaredEndpoint, key: &str, name: &str) -> Refusal {
    let known: Vec<&str> = endpoint.deployments.keys().map(Name::as_str).collect();
    let near = suggest::nearest(name, &known).map(|near| format!("did you mean `{near}`? "));
    let known = if known.is_empty() {
        "there are none yet".to_owned()
    } else {
        format!("the deployments are {}", suggest::list(&known))
    };
    let short: String = name.chars().take(64).collect();
    Refusal::invalid(format!(
        "`{key}` names `{short}`, but there is no such deployment; {}{known}",
        near.unwrap_or_default()
    ))
}
