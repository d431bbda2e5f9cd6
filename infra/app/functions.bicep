// The function app: its plan, its scale and its settings.

@description('Name of the function app, unique in Azure.')
param name string

@description('Name of its plan.')
param planName string

@description('Azure region.')
param location string

@description('Tags of both.')
param tags object

@description('FlexConsumption, or Consumption, the older plan for Linux.')
@allowed([
  'FlexConsumption'
  'Consumption'
])
param hostingPlan string

@description('Memory of an instance in MB (FlexConsumption).')
param instanceMemoryMB int

@description('At most so many instances of each function (FlexConsumption).')
param maximumInstanceCount int

@description('So many instances are always ready for HTTP requests (FlexConsumption).')
param alwaysReadyInstances int

@description('So many HTTP requests at a time for each instance (FlexConsumption).')
param httpConcurrency int

@description('Id of the app\'s identity.')
param identityId string

@description('Client id of the app\'s identity.')
param identityClientId string

@description('URL of the Blob service, with a slash at its end.')
param blobUri string

@description('Name of the container for the package.')
param packageContainer string

@description('Host name of the Service Bus namespace.')
param serviceBusHost string

@description('Where telemetry goes.')
param insightsConnectionString string

@description('URL of the Key Vault, with a slash at its end.')
param vaultUri string

@description('Settings of the handler that are no secrets; empty ones are left out.')
param settings object

@description('Settings whose value is the secret of the same name in the Key Vault.')
param secretSettings string[]

var isFlex = hostingPlan == 'FlexConsumption'

var hostSettings = {
  AzureWebJobsStorage__blobServiceUri: blobUri
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: identityClientId
  ServiceBusConnection__fullyQualifiedNamespace: serviceBusHost
  ServiceBusConnection__credential: 'managedidentity'
  ServiceBusConnection__clientId: identityClientId
  APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnectionString
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
}

// FlexConsumption has these in functionAppConfig, and refuses them as settings.
var consumptionSettings = {
  FUNCTIONS_EXTENSION_VERSION: '~4'
  FUNCTIONS_WORKER_RUNTIME: 'custom'
  WEBSITE_RUN_FROM_PACKAGE: '${blobUri}${packageContainer}/orderup.zip'
  WEBSITE_RUN_FROM_PACKAGE_BLOB_MI_RESOURCE_ID: identityId
}

var handlerSettings = toObject(filter(items(settings), item => !empty(item.value)), item => item.key, item => item.value)

var references = toObject(
  secretSettings,
  setting => setting,
  setting => '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/${toLower(replace(setting, '_', '-'))})'
)

module plan 'br/public:avm/res/web/serverfarm:0.7.0' = {
  name: 'plan'
  params: {
    name: planName
    location: location
    tags: tags
    kind: 'linux'
    reserved: true
    skuName: isFlex ? 'FC1' : 'Y1'
    zoneRedundant: false
  }
}

module app 'br/public:avm/res/web/site:0.24.0' = {
  name: 'function-app'
  params: {
    name: name
    location: location
    tags: tags
    kind: 'functionapp,linux'
    serverFarmResourceId: plan.outputs.resourceId
    httpsOnly: true
    clientAffinityEnabled: false
    publicNetworkAccess: 'Enabled'
    managedIdentities: {
      userAssignedResourceIds: [
        identityId
      ]
    }
    keyVaultAccessIdentityResourceId: identityId
    basicPublishingCredentialsPolicies: [
      {
        name: 'ftp'
        allow: false
      }
      {
        name: 'scm'
        allow: false
      }
    ]
    functionAppConfig: isFlex
      ? {
          runtime: {
            name: 'custom'
            version: '1.0'
          }
          deployment: {
            storage: {
              type: 'blobContainer'
              value: '${blobUri}${packageContainer}'
              authentication: {
                type: 'UserAssignedIdentity'
                userAssignedIdentityResourceId: identityId
              }
            }
          }
          scaleAndConcurrency: {
            instanceMemoryMB: instanceMemoryMB
            maximumInstanceCount: maximumInstanceCount
            alwaysReady: alwaysReadyInstances == 0
              ? []
              : [
                  {
                    name: 'http'
                    instanceCount: alwaysReadyInstances
                  }
                ]
            triggers: {
              http: {
                perInstanceConcurrency: httpConcurrency
              }
            }
          }
        }
      : null
    siteConfig: {
      alwaysOn: false
      ftpsState: 'Disabled'
      http20Enabled: true
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
    }
    configs: [
      {
        name: 'appsettings'
        // What was set by hand in an emergency, PARKED_VENDORS for one, outlives a deployment of the infrastructure.
        retainCurrentAppSettings: true
        properties: union(hostSettings, isFlex ? {} : consumptionSettings, handlerSettings, references)
      }
    ]
  }
}

@description('Name of the function app.')
output name string = app.outputs.name

@description('Base URL of the API.')
output apiUrl string = 'https://${app.outputs.defaultHostname}/api'
