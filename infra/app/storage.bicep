// The storage account: the Functions host's own containers, the package, and the order book.

@description('Name of the account: 3 to 24 lower-case letters and digits, unique in Azure.')
@minLength(3)
@maxLength(24)
param name string

@description('Azure region.')
param location string

@description('Tags of the account.')
param tags object

@description('How the data is replicated.')
@allowed([
  'Standard_LRS'
  'Standard_ZRS'
  'Standard_GRS'
  'Standard_GZRS'
  'Standard_RAGRS'
  'Standard_RAGZRS'
])
param replication string

@description('Name of the container for the package.')
param packageContainer string

@description('Name of the container for the order book.')
param orderBookContainer string

@description('Days after which an order is removed from the order book; 0 keeps everything.')
@minValue(0)
@maxValue(36500)
param orderBookRetentionDays int

@description('Id of the Log Analytics workspace that gets the log of the blobs.')
param workspaceId string

@description('Whether reads and writes are logged too.')
param accessLog bool

// The host's lock and the outbox are read and written every few seconds, orders or not; deletions are few.
var logged = concat(['StorageDelete'], accessLog ? ['StorageRead', 'StorageWrite'] : [])

module account 'br/public:avm/res/storage/storage-account:0.32.1' = {
  name: 'storage-account'
  params: {
    name: name
    location: location
    tags: tags
    kind: 'StorageV2'
    skuName: replication
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    allowBlobPublicAccess: false
    minimumTlsVersion: 'TLS1_2'
    publicNetworkAccess: 'Enabled'
    networkAcls: {
      bypass: 'AzureServices'
      defaultAction: 'Allow'
    }
    blobServices: {
      containerDeleteRetentionPolicyEnabled: true
      containerDeleteRetentionPolicyDays: 14
      deleteRetentionPolicyEnabled: true
      deleteRetentionPolicyDays: 14
      diagnosticSettings: [
        {
          workspaceResourceId: workspaceId
          logCategoriesAndGroups: map(logged, name => {
            category: name
          })
          // Metrics are in Azure Monitor anyway; in the workspace they would be paid for.
          metricCategories: []
        }
      ]
      containers: [
        {
          name: packageContainer
          publicAccess: 'None'
        }
        {
          name: orderBookContainer
          publicAccess: 'None'
        }
      ]
    }
    // Only the orders. What is in the outbox has not reached Service Bus yet, and goes when it has.
    // Always there, because a policy that is only left out stays in the account: 0 days has to switch it off.
    managementPolicyRules: [
      {
        name: 'forget-old-orders'
        enabled: orderBookRetentionDays > 0
        type: 'Lifecycle'
        definition: {
          filters: {
            blobTypes: [
              'blockBlob'
            ]
            prefixMatch: [
              '${orderBookContainer}/orders/'
            ]
          }
          actions: {
            baseBlob: {
              delete: {
                daysAfterModificationGreaterThan: max(orderBookRetentionDays, 1)
              }
            }
          }
        }
      }
    ]
  }
}

@description('Name of the account.')
output name string = account.outputs.name

@description('URL of the Blob service, with a slash at its end.')
output blobUri string = account.outputs.primaryBlobEndpoint
