#!/usr/bin/env bash
# Azure's tutorial "safe rollout", step by step: blue takes all traffic, green is tested without any, then has a tenth,
# then all; blue is deleted. `safe-rollout.sh kubernetes` uses the files of a Kubernetes endpoint.
#
#   examples/setup.sh
#   scoregate serve --state --python target/python/bin/python &
#   examples/safe-rollout.sh
#
# AZ chooses the program (AZ=az with az linked to scoregate); SCOREGATE_STATE or SCOREGATE_ADMIN which router it asks.
set -euo pipefail

AZ="${AZ:-scoregate}"
ENDPOINT_NAME="${ENDPOINT_NAME:-endpt-sr-$RANDOM}"
tutorials=$(dirname "${BASH_SOURCE[0]}")/tutorials
files=$tutorials/${1:-managed}
# shellcheck source-path=SCRIPTDIR source=tutorials/steps.sh
source "$tutorials/steps.sh"

# Part of what is known of the endpoint, or of a deployment.
show_endpoint() { $AZ ml online-endpoint show -n "$ENDPOINT_NAME" --query "$1" -o tsv | xargs; }
show_deployment() {
    $AZ ml online-deployment show --name "$1" --endpoint-name "$ENDPOINT_NAME" --query "$2" -o tsv
}

step "create the endpoint; it has no traffic yet"
$AZ ml online-endpoint create --name "$ENDPOINT_NAME" -f "$files/endpoint.yml" -o none
state=$(show_endpoint provisioning_state)
expect "endpoint $ENDPOINT_NAME" Succeeded "$state"

step "create blue, with all traffic"
$AZ ml online-deployment create --name blue --endpoint-name "$ENDPOINT_NAME" -f "$files/blue-deployment.yml" \
    --all-traffic -o none
state=$(show_deployment blue provisioning_state)
expect "deployment blue" Succeeded "$state"
share=$(show_endpoint traffic.blue)
expect "traffic of blue" 100 "$share"

step "invoke"
answer=$($AZ ml online-endpoint invoke --name "$ENDPOINT_NAME" -o tsv \
    --request-file "$tutorials/model-1/sample-request.json")
expect_part "blue's model answers" '"model": "ridge"' "$answer"

step "scale blue to two instances"
$AZ ml online-deployment update --name blue --endpoint-name "$ENDPOINT_NAME" --set instance_count=2 -o none
count=$(show_deployment blue instance_count)
expect "instances of blue" 2 "$count"

step "create green; a new deployment has no traffic"
$AZ ml online-deployment create --name green --endpoint-name "$ENDPOINT_NAME" -f "$files/green-deployment.yml" -o none
shares=$(show_endpoint "[traffic.blue, traffic.green]")
expect "traffic of blue and green" "100 0" "$shares"

step "test green by its name"
answer=$($AZ ml online-endpoint invoke --name "$ENDPOINT_NAME" --deployment-name green -o tsv \
    --request-file "$tutorials/model-2/sample-request.json")
expect_part "green's model answers" '"model": "forest"' "$answer"

step "test green with curl: key, scoring URI, and the header that names the deployment"
ENDPOINT_KEY=$($AZ ml online-endpoint get-credentials -n "$ENDPOINT_NAME" -o tsv --query primaryKey)
SCORING_URI=$($AZ ml online-endpoint show -n "$ENDPOINT_NAME" -o tsv --query scoring_uri)
# With a header that names a deployment as its argument.
score() {
    curl --silent --show-error --fail-with-body --request POST "$SCORING_URI" \
        --header "Authorization: Bearer $ENDPOINT_KEY" --header "Content-Type: application/json" \
        ${1:+--header "azureml-model-deployment: $1"} --data "@$tutorials/model-2/sample-request.json"
}
answer=$(score green)
expect_part "green's model answers curl" '"model": "forest"' "$answer"
answer=$(score)
expect_part "without the header blue's does" '"model": "ridge"' "$answer"

step "give green a tenth of the traffic"
$AZ ml online-endpoint update --name "$ENDPOINT_NAME" --traffic "blue=90 green=10" -o none
shares=$(show_endpoint "[traffic.blue, traffic.green]")
expect "traffic of blue and green" "90 10" "$shares"
expect_both '"model": "ridge"' '"model": "forest"' score

step "give green all of it"
$AZ ml online-endpoint update --name "$ENDPOINT_NAME" --traffic "blue=0 green=100" -o none
shares=$(show_endpoint "[traffic.blue, traffic.green]")
expect "traffic of blue and green" "0 100" "$shares"
expect_only '"model": "forest"' score

step "delete blue"
$AZ ml online-deployment delete --name blue --endpoint "$ENDPOINT_NAME" --yes --no-wait -o none
expect_gone "deployment blue" show_deployment blue name
answer=$(score)
expect_part "green's model answers" '"model": "forest"' "$answer"

step "delete the endpoint"
$AZ ml online-endpoint delete --name "$ENDPOINT_NAME" --yes --no-wait -o none
expect_gone "endpoint $ENDPOINT_NAME" show_endpoint name
