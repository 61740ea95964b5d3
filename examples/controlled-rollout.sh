#!/usr/bin/env bash
# The controlled rollout of v1 (AKS endpoints): versions behind one endpoint, each with a percentile of the traffic; what
# is not given away goes to the default version, which the first one is.
#
#   examples/setup.sh
#   scoregate serve --state --python target/python/bin/python &
#   examples/controlled-rollout.sh
#
# AZ chooses the program (AZ=az with az linked to scoregate); SCOREGATE_STATE or SCOREGATE_ADMIN which router it asks.
set -euo pipefail

AZ="${AZ:-scoregate}"
ENDPOINT_NAME="${ENDPOINT_NAME:-endpt-cr-$RANDOM}"
tutorials=$(dirname "${BASH_SOURCE[0]}")/tutorials
# shellcheck source-path=SCRIPTDIR source=tutorials/steps.sh
source "$tutorials/steps.sh"

# The answer to the sample request.
run() { $AZ ml endpoint realtime run -n "$ENDPOINT_NAME" -d "@$tutorials/model-1/sample-request.json" -o tsv; }
# Part of what is known of the endpoint and its versions.
show() { $AZ ml endpoint realtime show -n "$ENDPOINT_NAME" --query "$1" -o tsv | xargs; }

step "create version a with 20 %; it is the first and therefore the default, so it gets the other 80 % as well"
$AZ ml endpoint realtime create-version -n "$ENDPOINT_NAME" --version-name versiona -m "$tutorials/model-1/model" \
    --ic "$tutorials/v1/inferenceconfig-a.json" --dc "$tutorials/v1/deploymentconfig.json" \
    --traffic-percentile 20 --is-control-version-type true -o none
version=$(show "versions.versiona.[state, type, trafficPercentile, isDefault]")
expect "version a" "Healthy Control 20.0 true" "$version"
expect_only '"model": "ridge"' run

step "create version b with 10 %"
$AZ ml endpoint realtime create-version -n "$ENDPOINT_NAME" --version-name versionb -m "$tutorials/model-2/model" \
    --ic "$tutorials/v1/inferenceconfig-b.json" --dc "$tutorials/v1/deploymentconfig.json" \
    --traffic-percentile 10 -o none
version=$(show "versions.versionb.[state, type, trafficPercentile, isDefault]")
expect "version b" "Healthy Treatment 10.0 false" "$version"
expect_both '"model": "ridge"' '"model": "forest"' run

step "give b 40 % and make it the default; a keeps its 20 %, and b gets the remaining 40 % as well"
$AZ ml endpoint realtime update-version -n "$ENDPOINT_NAME" --version-name versionb \
    --traffic-percentile 40 --is-default true -o none
version=$(show "versions.versionb.[state, type, trafficPercentile, isDefault]")
expect "version b" "Healthy Treatment 40.0 true" "$version"
version=$(show "versions.versiona.[state, type, trafficPercentile, isDefault]")
expect "version a" "Healthy Control 20.0 false" "$version"
expect_both '"model": "ridge"' '"model": "forest"' run

step "delete a; scoregate refuses that while a has traffic, so it gives up its 20 % first"
$AZ ml endpoint realtime update-version -n "$ENDPOINT_NAME" --version-name versiona --traffic-percentile 0 -o none
$AZ ml endpoint realtime delete-version -n "$ENDPOINT_NAME" --version-name versiona -o none
versions=$(show "keys(versions)")
expect "versions" versionb "$versions"
expect_only '"model": "forest"' run

step "delete the endpoint"
$AZ ml endpoint realtime delete -n "$ENDPOINT_NAME" -o none
expect_gone "endpoint $ENDPOINT_NAME" show name
