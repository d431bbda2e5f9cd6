#!/bin/sh
# Sees to it that every subscription has its own rule and no other; azd runs it after `azd provision`, before any code.
#
# Azure gives each new subscription a match-all rule `$Default`. It removes it when another rule is created through Azure
# Resource Manager, say some, and it does not, say others. Left in place, every copy that is meant for one audience would reach
# all of them; with no rule at all, orders would reach nobody. So neither is taken on trust.
#
# Exit status 0 means that each subscription has exactly the rule that servicebus.json gives it.
set -eu

fail() {
    echo "infra/hooks/postprovision.sh: $*" >&2
    exit 1
}

command -v az >/dev/null || fail "needs the Azure CLI"
: "${AZURE_SUBSCRIPTION_ID:?}" "${AZURE_RESOURCE_GROUP:?}" "${ORDERUP_SERVICE_BUS:?}" "${ORDERUP_SERVICE_BUS_RULES:?}"
az account show --subscription "$AZURE_SUBSCRIPTION_ID" >/dev/null || fail "run az login: azd's own login is not the Azure CLI's"

# rule list|delete of the subscription at hand.
rule() {
    action=$1
    shift
    az servicebus topic subscription rule "$action" --subscription "$AZURE_SUBSCRIPTION_ID" \
        --resource-group "$AZURE_RESOURCE_GROUP" --namespace-name "$ORDERUP_SERVICE_BUS" \
        --topic-name "$topic" --subscription-name "$subscription" "$@"
}

for path in $ORDERUP_SERVICE_BUS_RULES; do
    topic=${path%%/*}
    name=${path##*/}
    subscription=${path#*/}
    subscription=${subscription%/*}
    names=$(rule list --query '[].name' --output tsv)
    # Ours first: with no rule at all the subscription would take nothing meanwhile.
    echo "$names" | grep -Fqx "$name" ||
        fail "the subscription $subscription has no rule $name: it takes no messages. It has: ${names:-none}"
    # shellcheck disable=SC2016 # Azure's name for it.
    if echo "$names" | grep -Fqx '$Default'; then
        rule delete --name '$Default' --output none
        names=$(rule list --query '[].name' --output tsv)
    fi
    [ "$names" = "$name" ] || fail "the subscription $subscription has other rules than $name: $names"
    echo "subscription $subscription: rule $name and no other"
done
