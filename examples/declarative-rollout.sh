#!/usr/bin/env bash
# The safe rollout as Azure's command line had it in 2021: one YAML file says everything about the endpoint, each step is
# the next file, and a deployment that a file leaves out is deleted.
#
#   examples/setup.sh
#   scoregate serve --state --python target/python/bin/python &
#   examples/declarative-rollout.sh
#
# AZ chooses the program (AZ=az with az linked to scoregate); SCOREGATE_STATE or SCOREGATE_ADMIN which router it asks.
set -euo pipefail

AZ="${AZ:-scoregate}"
ENDPOINT_NAME="${ENDPOINT_NAME:-endpt-dr-$RANDOM}"
tutorials=$(dirname "${BASH_SOURCE[0]}")/tutorials
flow=$tutorials/canary-declarative-flow
# shellcheck source-path=SCRIPTDIR source=tutorials/steps.sh
source "$tutorials/steps.sh"

# The answer to the sample request; arguments are passed on.
invoke() {
    $AZ ml endpoint invoke --name "$ENDPOINT_NAME" -o tsv --request-file "$tutorials/model-2/sample-request.json" "$@"
}
# Part of what is known of the endpoint.
show() { $AZ ml endpoint show --name "$ENDPOINT_NAME" --query "$1" -o tsv | xargs; }

step "1: create the endpoint with blue"
$AZ ml endpoint create -n "$ENDPOINT_NAME" -f "$flow/1-create-endpoint-with-blue.yml" -o none
state=$(show provisioning_state)
expect "endpoint $ENDPOINT_NAME" Succeeded "$state"
state=$(show "deployments[?name=='blue'].provisioning_state")
expect "deployment blue" Succeeded "$state"
answer=$(invoke)
expect_part "blue's model answers" '"model": "ridge"' "$answer"

step "2: scale blue to two instances"
$AZ ml endpoint update -n "$ENDPOINT_NAME" -f "$flow/2-scale-blue.yml" -o none
count=$(show "deployments[?name=='blue'].instance_count")
expect "instances of blue" 2 "$count"

step "3: create green, without traffic"
$AZ ml endpoint update -n "$ENDPOINT_NAME" -f "$flow/3-create-green.yml" -o none
shares=$(show "[traffic.blue, traffic.green]")
expect "traffic of blue and green" "100 0" "$shares"
answer=$(invoke --deployment green)
expect_part "green's model answers when it is asked by name" '"model": "forest"' "$answer"
answer=$(invoke)
expect_part "else blue's does" '"model": "ridge"' "$answer"

step "4: give green a tenth of the traffic"
$AZ ml endpoint update -n "$ENDPOINT_NAME" -f "$flow/4-flight-green.yml" -o none
shares=$(show "[traffic.blue, traffic.green]")
expect "traffic of blue and green" "90 10" "$shares"
expect_both '"model": "ridge"' '"model": "forest"' invoke

step "5: give green all of it"
$AZ ml endpoint update -n "$ENDPOINT_NAME" -f "$flow/5-full-green.yml" -o none
shares=$(show "[traffic.blue, traffic.green]")
expect "traffic of blue and green" "0 100" "$shares"
expect_only '"model": "forest"' invoke

step "6: blue is not in the file, so it is deleted"
$AZ ml endpoint update -n "$ENDPOINT_NAME" -f "$flow/6-delete-blue.yml" -o none
names=$(show "deployments[].name")
expect "deployments" green "$names"
answer=$(invoke)
expect_part "green's model answers" '"model": "forest"' "$answer"

step "delete the endpoint"
$AZ ml endpoint delete -n "$ENDPOINT_NAME" --yes --no-wait -o none
expect_gone "endpoint $ENDPOINT_NAME" show name
