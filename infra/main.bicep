targetScope = 'subscription'

@description('Name of the azd environment; the names of all resources are made of it.')
@minLength(1)
@maxLength(64)
param environmentName string

@description('Azure region. FlexConsumption is not in all of them: az functionapp list-flexconsumption-locations.')
@minLength(1)
@metadata({
  azd: {
    type: 'location'
  }
})
param location string

@description('Principal id of who deploys, who then may set secrets; azd fills it in. Empty to give no role.')
param principalId string = ''

@description('What the deployer is.')
@allowed([
  'User'
  'ServicePrincipal'
])
param principalType string = 'User'

@description('FlexConsumption, or Consumption: the older plan for Linux, which Azure retires on 30 September 2028.')
@allowed([
  'FlexConsumption'
  'Consumption'
])
param hostingPlan string = 'FlexConsumption'

@description('Memory of an instance in MB (FlexConsumption).')
@allowed([
  512
  2048
  4096
])
param instanceMemoryMB int = 512

@description('At most so many instances of each function (FlexConsumption).')
@minValue(40)
@maxValue(1000)
param maximumInstanceCount int = 100

@description('So many instances are always ready for HTTP requests, and always paid for (FlexConsumption).')
@minValue(0)
@maxValue(100)
param alwaysReadyInstances int = 0

@description('So many HTTP requests at a time for each instance (FlexConsumption).')
@minValue(1)
@maxValue(1000)
param httpConcurrency int = 100

@description('Whether the app may manage the entities that trigger it, which Azure needs to see how many messages wait. Without it Azure adds instances one by one.')
param targetBasedScaling bool = true

@description('How the storage account, and with it the order book, is replicated.')
@allowed([
  'Standard_LRS'
  'Standard_ZRS'
  'Standard_GRS'
  'Standard_GZRS'
  'Standard_RAGRS'
  'Standard_RAGZRS'
])
param storageReplication string = 'Standard_ZRS'

@description('Days after which an order is removed from the order book; 0 keeps everything. Keep it well above RETRY_DEADLINE, whose highest value is 14 days.')
@minValue(0)
@maxValue(36500)
param orderBookRetentionDays int = 0

@description('Whether each read and write of a blob is logged, and not only each deletion. Who has read the order book is in no other log.')
param storageAccessLog bool = false

@description('How long logs and telemetry are kept, in days.')
@allowed([
  30
  60
  90
  120
  180
  270
  365
  550
  730
])
param logRetentionDays int = 30

@description('Who gets the alerts by email; empty for nobody.')
param alertEmail string = ''

@description('So many messages may wait in the queue or the topic at every moment of half an hour before it is an alert. A shop that is never without a message needs more than 0.')
@minValue(0)
param alertWaitingMessages int = 0

@description('So many messages may wait for a later time before it is an alert.')
@minValue(0)
param alertScheduledMessages int = 500

@description('A notification that has been put off so many times is an alert; with the default RETRY_SCHEDULE the eighth time is after two hours.')
@minValue(1)
param alertAttempts int = 8

@description('EMAIL_PROVIDER.')
@allowed([
  'acs'
  'sendgrid'
  'resend'
  'smtp'
])
param emailProvider string = 'acs'

@description('Whether to create Azure Communication Services with a domain that Azure manages, for emailProvider acs. Such a domain is for trying it out.')
param createEmailService bool = true

@description('Where Azure Communication Services keeps its data.')
@allowed([
  'Africa'
  'Asia Pacific'
  'Australia'
  'Brazil'
  'Canada'
  'Europe'
  'France'
  'Germany'
  'India'
  'Japan'
  'Korea'
  'Norway'
  'Switzerland'
  'UAE'
  'UK'
  'United States'
])
param emailDataLocation string = 'United States'

@description('ACS_ENDPOINT of Azure Communication Services that exist already, with createEmailService false. Give the app\'s identity the role there.')
param acsEndpoint string = ''

@description('EMAIL_FROM; may be empty with createEmailService.')
param emailFrom string = ''

@description('EMAIL_REPLY_TO.')
param emailReplyTo string = ''

@description('EMAIL_RATE_LIMIT, for each instance; empty for the default.')
param emailRateLimit string = ''

@description('TILL.')
@allowed([
  'none'
  'square'
  'pos'
])
param till string = 'none'

@description('VENDOR_NOTIFY_ON; empty for the default.')
@allowed([
  ''
  'placed'
  'confirmed'
])
param vendorNotifyOn string = ''

@description('SQUARE_LOCATION_ID.')
param squareLocationId string = ''

@description('SQUARE_BASE_URL; empty for the real Square.')
param squareBaseUrl string = ''

@description('TILL_URL.')
param tillUrl string = ''

@description('TILL_LOCATION_ID.')
param tillLocationId string = ''

@description('RETRY_SCHEDULE; empty for the default.')
param retrySchedule string = ''

@description('RETRY_DEADLINE; empty for the default.')
param retryDeadline string = ''

@description('SENDGRID_API_KEY.')
@secure()
param sendgridApiKey string = ''

@description('RESEND_API_KEY.')
@secure()
param resendApiKey string = ''

@description('SMTP_URL, which has the password in it.')
@secure()
param smtpUrl string = ''

@description('SQUARE_ACCESS_TOKEN.')
@secure()
param squareAccessToken string = ''

@description('TILL_TOKEN.')
@secure()
param tillToken string = ''

@description('ORDER_TOKEN_SECRET: 32 characters or more. Without it orders have no token.')
@secure()
param orderTokenSecret string = ''

@description('The NAMEs of all `env:NAME` in vendors.json, with commas between them. Their values are put into the Key Vault by hand, before the app is deployed.')
param vendorSecretNames string = ''

var token = uniqueString(subscription().id, environmentName, location)
var tags = {
  'azd-env-name': environmentName
}
var packageContainer = 'packages'
var orderBookContainer = 'order-book'
var hasEmailService = emailProvider == 'acs' && createEmailService

// Which secrets there are; not what they are.
var givenSecrets = concat(
  empty(sendgridApiKey) ? [] : ['SENDGRID_API_KEY'],
  empty(resendApiKey) ? [] : ['RESEND_API_KEY'],
  empty(smtpUrl) ? [] : ['SMTP_URL'],
  empty(squareAccessToken) ? [] : ['SQUARE_ACCESS_TOKEN'],
  empty(tillToken) ? [] : ['TILL_TOKEN'],
  empty(orderTokenSecret) ? [] : ['ORDER_TOKEN_SECRET']
)
var vendorSecrets = filter(map(split(vendorSecretNames, ','), name => trim(name)), name => !empty(name))

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module identity 'br/public:avm/res/managed-identity/user-assigned-identity:0.5.0' = {
  name: 'identity'
  scope: group
  params: {
    name: 'id-orderup-${token}'
    location: location
    tags: tags
  }
}

module monitoring 'app/monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: {
    workspaceName: 'log-${token}'
    insightsName: 'appi-${token}'
    location: location
    tags: tags
    retentionDays: logRetentionDays
  }
}

module servicebus 'app/servicebus.bicep' = {
  name: 'servicebus'
  scope: group
  params: {
    name: 'sbns-${token}'
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
  }
}

module storage 'app/storage.bicep' = {
  name: 'storage'
  scope: group
  params: {
    name: 'st${token}'
    location: location
    tags: tags
    replication: storageReplication
    packageContainer: packageContainer
    orderBookContainer: orderBookContainer
    orderBookRetentionDays: orderBookRetentionDays
    workspaceId: monitoring.outputs.workspaceId
    accessLog: storageAccessLog
  }
}

module vault 'app/vault.bicep' = {
  name: 'vault'
  scope: group
  params: {
    name: 'kv-${token}'
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
    settings: givenSecrets
    secrets: {
      SENDGRID_API_KEY: sendgridApiKey
      RESEND_API_KEY: resendApiKey
      SMTP_URL: smtpUrl
      SQUARE_ACCESS_TOKEN: squareAccessToken
      TILL_TOKEN: tillToken
      ORDER_TOKEN_SECRET: orderTokenSecret
    }
  }
}

module email 'app/email.bicep' = if (hasEmailService) {
  name: 'email'
  scope: group
  params: {
    emailServiceName: 'acse-${token}'
    communicationName: 'acs-${token}'
    dataLocation: emailDataLocation
    tags: tags
  }
}

module roles 'app/roles.bicep' = {
  name: 'roles'
  scope: group
  params: {
    namespaceName: servicebus.outputs.name
    topicName: servicebus.outputs.topic
    storageAccountName: storage.outputs.name
    packageContainer: packageContainer
    vaultName: vault.outputs.name
    insightsName: monitoring.outputs.insightsName
    communicationName: hasEmailService ? email!.outputs.name : ''
    appPrincipalId: identity.outputs.principalId
    deployerPrincipalId: principalId
    deployerPrincipalType: principalType
    targetBasedScaling: targetBasedScaling
    deployerUploadsPackage: hostingPlan == 'Consumption'
  }
}

module functions 'app/functions.bicep' = {
  name: 'functions'
  scope: group
  // Its references to the Key Vault are resolved when it starts.
  dependsOn: [
    roles
  ]
  params: {
    name: 'func-orderup-${token}'
    planName: 'plan-${token}'
    location: location
    tags: tags
    hostingPlan: hostingPlan
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    alwaysReadyInstances: alwaysReadyInstances
    httpConcurrency: httpConcurrency
    identityId: identity.outputs.resourceId
    identityClientId: identity.outputs.clientId
    blobUri: storage.outputs.blobUri
    packageContainer: packageContainer
    serviceBusHost: servicebus.outputs.host
    insightsConnectionString: monitoring.outputs.connectionString
    vaultUri: vault.outputs.uri
    settings: {
      ORDERS_TOPIC: servicebus.outputs.topic
      ORDER_BOOK: orderBookContainer
      EMAIL_PROVIDER: emailProvider
      EMAIL_FROM: empty(emailFrom) && hasEmailService ? email!.outputs.sender : emailFrom
      EMAIL_REPLY_TO: emailReplyTo
      EMAIL_RATE_LIMIT: emailRateLimit
      ACS_ENDPOINT: hasEmailService ? email!.outputs.endpoint : acsEndpoint
      ACS__clientId: emailProvider == 'acs' ? identity.outputs.clientId : ''
      ACS__credential: emailProvider == 'acs' ? 'managedidentity' : ''
      TILL: till
      VENDOR_NOTIFY_ON: vendorNotifyOn
      SQUARE_LOCATION_ID: squareLocationId
      SQUARE_BASE_URL: squareBaseUrl
      TILL_URL: tillUrl
      TILL_LOCATION_ID: tillLocationId
      RETRY_SCHEDULE: retrySchedule
      RETRY_DEADLINE: retryDeadline
    }
    secretSettings: concat(givenSecrets, vendorSecrets)
  }
}

module alerts 'app/alerts.bicep' = {
  name: 'alerts'
  scope: group
  params: {
    location: location
    tags: tags
    prefix: 'orderup-${environmentName}'
    namespaceId: servicebus.outputs.id
    workspaceId: monitoring.outputs.workspaceId
    insightsId: monitoring.outputs.insightsId
    apiUrl: functions.outputs.apiUrl
    email: alertEmail
    waitingMessages: alertWaitingMessages
    scheduledMessages: alertScheduledMessages
    attempts: alertAttempts
  }
}

output AZURE_RESOURCE_GROUP string = group.name
output ORDERUP_APP string = functions.outputs.name
output ORDERUP_API_URL string = functions.outputs.apiUrl
output ORDERUP_HOSTING_PLAN string = hostingPlan
output ORDERUP_SERVICE_BUS string = servicebus.outputs.name
output ORDERUP_SERVICE_BUS_RULES string = servicebus.outputs.rules
output ORDERUP_STORAGE_ACCOUNT string = storage.outputs.name
output ORDERUP_PACKAGE_CONTAINER string = packageContainer
output ORDERUP_KEY_VAULT string = vault.outputs.name
output ORDERUP_LOG_ANALYTICS string = monitoring.outputs.workspaceName
output ORDERUP_APPLICATION_INSIGHTS string = monitoring.outputs.insightsName
