//! Whether a deployment's document has proven itself: its replicas have been ready at least once. Until then the router keeps a
//! mark in the document, which outlasts a restart: that it is new, or the last document that was proven.

use serde_json::json;

use super::{Document, PROVISIONING};

/// The document without the mark.
pub fn bare(document: &Document) -> Document {
    let mut bare = document.clone();
    bare.remove(PROVISIONING);
    bare
}

/// Whether no document of this deployment has been proven.
pub fn is_unproven(document: &Document) -> bool {
    document.get(PROVISIONING).is_some_and(|mark| mark["new"] == true)
}

/// Whether it waits for its proof.
pub fn is_marked(document: &Document) -> bool {
    document.contains_key(PROVISIONING)
}

/// The last document that was proven, while a later one is not.
pub fn proven(document: &Document) -> Option<&Document> {
    document.get(PROVISIONING)?.get("previous")?.as_object()
}

/// Marks a document that takes the place of `before`.
pub fn mark(document: &mut Document, before: Option<&Document>) {
    let mark = match before {
        Some(before) if !is_unproven(before) => {
            json!({ "previous": proven(before).cloned().unwrap_or_else(|| bare(before)) })
        }
        _ => json!({ "new": true }),
    };
    document.insert(PROVISIONING.to_owned(), mark);
}

/// Takes the mark away.
pub fn unmark(document: &mut Document) {
    document.remove(PROVISIONING);
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn document(value: &Value) -> Document {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn the_last_proven_document_is_kept_through_several_attempts() {
        let good = document(&json!({ "name": "blue", "instance_count": 1 }));
        let mut first = document(&json!({ "name": "blue", "instance_count": 2 }));
        mark(&mut first, Some(&good));
        assert_eq!(proven(&first), Some(&good));
        let mut second = document(&json!({ "name": "blue", "instance_count": 3 }));
        mark(&mut second, Some(&first));
        assert_eq!(proven(&second), Some(&good));
        assert!(!is_unproven(&second));
        unmark(&mut second);
        assert_eq!((is_marked(&second), bare(&first).len()), (false, 2));
    }

    #[test]
    fn one_that_never_was_ready_stays_new() {
        let mut first = document(&json!({ "name": "blue" }));
        mark(&mut first, None);
        assert!(is_unproven(&first));
        let mut second = document(&json!({ "name": "blue", "instance_count": 3 }));
        mark(&mut second, Some(&first));
        assert!(is_unproven(&second) && proven(&second).is_none());
    }
}
