#!/bin/sh
# Publishes the package and says where the API is; azd runs it after `azd deploy`.
#
# The package goes to Azure as it is, with the run bit that the zip has for the handler; nothing packs it anew.
#
# FlexConsumption takes it at its deployment endpoint and keeps it in the container. Consumption runs it from the container by
# its URL, with the app's identity, because the account has no keys to sign a URL with: whoever deploys uploads it there.
set -eu

fail() {
    echo "infra/hooks/postdeploy.sh: $*" >&2
    exit 1
}

package=${ORDERUP_PACKAGE:-dist/orderup.zip}
[ -f "$package" ] || fail "there is no package $package"
command -v az >/dev/null || fail "needs the Azure CLI"
: "${AZURE_SUBSCRIPTION_ID:?}" "${AZURE_RESOURCE_GROUP:?}" "${ORDERUP_APP:?}" "${ORDERUP_HOSTING_PLAN:?}" "${ORDERUP_API_URL:?}"
az account show --subscription "$AZURE_SUBSCRIPTION_ID" >/dev/null || fail "run az login: azd's own login is not the Azure CLI's"

if command -v zipinfo >/dev/null; then
    zipinfo "$package" orderup | grep -q '^-rwx' || fail "orderup in $package has no run bit: Azure could not start it"
fi

# functionapp COMMAND… for our app
functionapp() {
    az functionapp "$@" --subscription "$AZURE_SUBSCRIPTION_ID" --resource-group "$AZURE_RESOURCE_GROUP" --name "$ORDERUP_APP"
}

case $ORDERUP_HOSTING_PLAN in
FlexConsumption)
    functionapp deployment source config-zip --src "$package" --output none
    ;;
Consumption)
    : "${ORDERUP_STORAGE_ACCOUNT:?}" "${ORDERUP_PACKAGE_CONTAINER:?}"
    az storage blob upload --subscription "$AZURE_SUBSCRIPTION_ID" --auth-mode login --account-name "$ORDERUP_STORAGE_ACCOUNT" \
        --container-name "$ORDERUP_PACKAGE_CONTAINER" --name orderup.zip --file "$package" --overwrite --output none ||
        fail "the package was not uploaded. A role that was assigned just now takes some minutes: try azd deploy again"
    functionapp restart --output none
    # Azure does not notice a new package behind the same URL by itself.
    az rest --method post --output none --url \
        "https://management.azure.com/subscriptions/$AZURE_SUBSCRIPTION_ID/resourceGroups/$AZURE_RESOURCE_GROUP/providers/Microsoft.Web/sites/$ORDERUP_APP/syncfunctiontriggers?api-version=2016-08-01"
    ;;
*)
    fail "there is no hosting plan $ORDERUP_HOSTING_PLAN"
    ;;
esac

echo "API: $ORDERUP_API_URL"
echo "key: az functionapp keys list --resource-group $AZURE_RESOURCE_GROUP --name $ORDERUP_APP --query functionKeys.default --output tsv"
