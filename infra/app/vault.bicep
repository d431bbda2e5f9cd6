// The Key Vault, and the secrets that were given as parameters.

@description('Name of the vault: 3 to 24 letters, digits and hyphens, unique in Azure.')
@minLength(3)
@maxLength(24)
param name string

@description('Azure region.')
param location string

@description('Tags of the vault.')
param tags object

@description('Id of the Log Analytics workspace that gets the vault\'s audit log.')
param workspaceId string

@description('The settings of the app that have a value in `secrets`.')
param settings string[]

@description('The values, by the name of the setting.')
@secure()
param secrets object

module vault 'br/public:avm/res/key-vault/vault:0.14.2' = {
  name: 'key-vault'
  params: {
    name: name
    location: location
    tags: tags
    sku: 'standard'
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 90
    enablePurgeProtection: true
    enableVaultForDeployment: false
    enableVaultForTemplateDeployment: false
    enableVaultForDiskEncryption: false
    publicNetworkAccess: 'Enabled'
    diagnosticSettings: [
      {
        workspaceResourceId: workspaceId
        logCategoriesAndGroups: [
          {
            category: 'AuditEvent'
          }
        ]
        // Metrics are in Azure Monitor anyway; in the workspace they would be paid for.
        metricCategories: []
      }
    ]
  }
}

resource secret 'Microsoft.KeyVault/vaults/secrets@2024-11-01' = [
  for setting in settings: {
    // Names of secrets have hyphens and no underscores.
    name: '${name}/${toLower(replace(setting, '_', '-'))}'
    properties: {
      value: secrets[setting]
    }
    dependsOn: [
      vault
    ]
  }
]

@description('Name of the vault.')
output name string = vault.outputs.name

@description('URL of the vault, with a slash at its end.')
output uri string = vault.outputs.uri
