// Orderup on Azure Container Apps, the supported home of Functions in containers. One app with all functions, from the image
// of ../Dockerfile. The environment, the registry, the key vault, the storage account, the Service Bus namespace and the
// identity with its roles must be there; docs/KUBERNETES.md says how.
targetScope = 'resourceGroup'

@description('Name of the container app.')
@minLength(2)
@maxLength(32)
param name string = 'orderup'

@description('Region of the container app: that of its environment.')
param location string = resourceGroup().location

@description('Resource id of the Container Apps environment.')
param environmentId string

@description('The image, by digest: registry.azurecr.io/orderup@sha256:…')
param image string

@description('Login server of the registry that has the image, such as registry.azurecr.io. The identity needs AcrPull on it.')
param registryServer string

@description('Resource id of the user-assigned identity of the app.')
param identityId string

@description('Client id of that identity.')
param identityClientId string

@description('Service Bus namespace, by its full name: name.servicebus.windows.net')
param serviceBusNamespace string

@description('Name of the storage account of the host and of the order book.')
param storageAccountName string

@description('Uri of the key vault with the function keys and the secret settings, with the slash at its end. The identity needs Key Vault Secrets User on it.')
param keyVaultUri string

@description('Settings of the handler that are not secret, by their names in the README, such as EMAIL_PROVIDER.')
param settings object

@description('Secret settings: the name of the variable and the name of its secret in the key vault.')
param secretSettings object = {
  ORDER_TOKEN_SECRET: 'order-token-secret'
}

@description('The list of vendors, as JSON: loadTextContent(\'vendors.json\'). Its secrets are references, by env:NAME.')
param vendors string

@description('Replicas that are always there. Two, so that an order finds somebody home while one is replaced.')
@minValue(1)
@maxValue(1000)
param minReplicas int = 2

@description('The most replicas. EMAIL_RATE_LIMIT is for each: at most this part of what the email provider allows.')
@minValue(1)
@maxValue(1000)
param maxReplicas int = 10

var hostSettings = {
  AzureFunctionsWebHost__hostid: name
  AzureWebJobsSecretStorageType: 'keyvault'
  AzureWebJobsSecretStorageKeyVaultUri: keyVaultUri
  AzureWebJobsSecretStorageKeyVaultClientId: identityClientId
  AzureWebJobsStorage__accountName: storageAccountName
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: identityClientId
  ServiceBusConnection__fullyQualifiedNamespace: serviceBusNamespace
  ServiceBusConnection__credential: 'managedidentity'
  ServiceBusConnection__clientId: identityClientId
  AZURE_CLIENT_ID: identityClientId
  ORDERS_TOPIC: 'orders'
  ORDER_BOOK: 'order-book'
  VENDORS_FILE: '/etc/orderup/vendors.json'
}

var plainVariables = map(items(union(hostSettings, settings)), setting => {
  name: setting.key
  value: setting.value
})

var secretVariables = map(items(secretSettings), setting => {
  name: setting.key
  secretRef: setting.value
})

var vaultSecrets = map(items(secretSettings), setting => {
  name: setting.value
  keyVaultUrl: '${keyVaultUri}secrets/${setting.value}'
  identity: identityId
})

// `kind` makes the platform read the triggers and write the scale rules itself: there are none here.
resource app 'Microsoft.App/containerApps@2025-07-01' = {
  name: name
  location: location
  kind: 'functionapp'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    environmentId: environmentId
    configuration: {
      activeRevisionsMode: 'Single'
      ingress: {
        external: true
        targetPort: 8080
        allowInsecure: false
        transport: 'auto'
      }
      registries: [
        {
          server: registryServer
          identity: identityId
        }
      ]
      secrets: concat(vaultSecrets, [
        {
          name: 'vendors'
          value: vendors
        }
      ])
    }
    template: {
      terminationGracePeriodSeconds: 60
      containers: [
        {
          name: 'orderup'
          image: image
          env: concat(plainVariables, secretVariables)
          resources: {
            cpu: json('0.5')
            memory: '1Gi'
          }
          probes: [
            {
              type: 'Startup'
              httpGet: {
                path: '/runtime/health/ready'
                port: 8080
              }
              periodSeconds: 12
              timeoutSeconds: 2
              failureThreshold: 10
            }
            {
              type: 'Readiness'
              httpGet: {
                path: '/runtime/health/ready'
                port: 8080
              }
              periodSeconds: 5
              timeoutSeconds: 3
              failureThreshold: 3
            }
            {
              type: 'Liveness'
              httpGet: {
                path: '/admin/host/ping'
                port: 8080
              }
              periodSeconds: 10
              timeoutSeconds: 5
              failureThreshold: 6
            }
          ]
          volumeMounts: [
            {
              volumeName: 'vendors'
              mountPath: '/etc/orderup'
            }
          ]
        }
      ]
      scale: {
        minReplicas: minReplicas
        maxReplicas: maxReplicas
      }
      volumes: [
        {
          name: 'vendors'
          storageType: 'Secret'
          secrets: [
            {
              secretRef: 'vendors'
              path: 'vendors.json'
            }
          ]
        }
      ]
    }
  }
}

@description('Where the shop calls: https://{fqdn}/api/checkout')
output fqdn string = app.properties.configuration.ingress.fqdn
