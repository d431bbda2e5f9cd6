// The Service Bus namespace, with the topology of servicebus.json, which the emulator and the tests read too.
//
// The entities are resources of this file and not parameters of the module: each property of servicebus.json is named
// here once, so that no default of a module (a subscription that deletes itself when it is idle, for one) gets between the
// file and Azure. Beside them only what the emulator's format has no word for is set.
//
// A new subscription gets a match-all rule `$Default` from Azure. Ours have names of their own, because a rule that is
// written to the name `$Default` has been seen to be gone afterwards, and a subscription without rules takes nothing.
// Creating another rule through Azure Resource Manager is reported to remove `$Default`, and also not to; so
// hooks/postprovision.sh looks, removes it where it is left, and fails unless each subscription has its own rule and no other.

@description('Name of the namespace: 6 to 50 letters, digits and hyphens, unique in Azure.')
@minLength(6)
@maxLength(50)
param name string

@description('Azure region.')
param location string

@description('Tags of the namespace.')
param tags object

@description('Id of the Log Analytics workspace that gets the namespace\'s operational logs.')
param workspaceId string

// The most that Standard has, and no dearer than less: the messages of an outage of days must fit in.
var maxSizeInMegabytes = 5120

var topology = loadJsonContent('../../servicebus.json').UserConfig.Namespaces[0]

var subscriptions = flatten(map(topology.Topics, publisher => map(publisher.Subscriptions, item => {
  topic: publisher.Name
  name: item.Name
  properties: item.Properties
  rules: item.Rules
})))

var rules = flatten(map(subscriptions, subscriber => map(subscriber.rules, item => {
  topic: subscriber.topic
  subscription: subscriber.name
  name: item.Name
  filterType: '${item.Properties.FilterType}Filter'
  filter: item.Properties.SqlFilter.SqlExpression
  action: item.Properties.Action.SqlExpression
})))

module namespace 'br/public:avm/res/service-bus/namespace:0.17.1' = {
  name: 'servicebus-namespace'
  params: {
    name: name
    location: location
    tags: tags
    skuObject: {
      // Topics, duplicate detection and forwarding do not exist in Basic.
      name: 'Standard'
    }
    zoneRedundant: false
    disableLocalAuth: true
    authorizationRules: []
    minimumTlsVersion: '1.2'
    publicNetworkAccess: 'Enabled'
    diagnosticSettings: [
      {
        workspaceResourceId: workspaceId
        logCategoriesAndGroups: [
          {
            category: 'OperationalLogs'
          }
        ]
        // Metrics are in Azure Monitor anyway; in the workspace they would be paid for.
        metricCategories: []
      }
    ]
  }
}

resource queue 'Microsoft.ServiceBus/namespaces/queues@2024-01-01' = [
  for item in topology.Queues: {
    name: '${name}/${item.Name}'
    properties: {
      deadLetteringOnMessageExpiration: item.Properties.DeadLetteringOnMessageExpiration
      defaultMessageTimeToLive: item.Properties.DefaultMessageTimeToLive
      forwardDeadLetteredMessagesTo: empty(item.Properties.ForwardDeadLetteredMessagesTo) ? null : item.Properties.ForwardDeadLetteredMessagesTo
      forwardTo: empty(item.Properties.ForwardTo) ? null : item.Properties.ForwardTo
      lockDuration: item.Properties.LockDuration
      maxDeliveryCount: item.Properties.MaxDeliveryCount
      maxSizeInMegabytes: maxSizeInMegabytes
      requiresDuplicateDetection: item.Properties.RequiresDuplicateDetection
      requiresSession: item.Properties.RequiresSession
    }
    dependsOn: [
      namespace
    ]
  }
]

resource topic 'Microsoft.ServiceBus/namespaces/topics@2024-01-01' = [
  for item in topology.Topics: {
    name: '${name}/${item.Name}'
    properties: {
      defaultMessageTimeToLive: item.Properties.DefaultMessageTimeToLive
      duplicateDetectionHistoryTimeWindow: item.Properties.DuplicateDetectionHistoryTimeWindow
      maxSizeInMegabytes: maxSizeInMegabytes
      requiresDuplicateDetection: item.Properties.RequiresDuplicateDetection
    }
    dependsOn: [
      namespace
    ]
  }
]

resource subscription 'Microsoft.ServiceBus/namespaces/topics/subscriptions@2024-01-01' = [
  for item in subscriptions: {
    name: '${name}/${item.topic}/${item.name}'
    properties: {
      deadLetteringOnFilterEvaluationExceptions: true
      deadLetteringOnMessageExpiration: item.properties.DeadLetteringOnMessageExpiration
      defaultMessageTimeToLive: item.properties.DefaultMessageTimeToLive
      forwardDeadLetteredMessagesTo: empty(item.properties.ForwardDeadLetteredMessagesTo) ? null : item.properties.ForwardDeadLetteredMessagesTo
      forwardTo: empty(item.properties.ForwardTo) ? null : item.properties.ForwardTo
      lockDuration: item.properties.LockDuration
      maxDeliveryCount: item.properties.MaxDeliveryCount
      requiresSession: item.properties.RequiresSession
    }
    dependsOn: [
      queue
      topic
    ]
  }
]

resource rule 'Microsoft.ServiceBus/namespaces/topics/subscriptions/rules@2024-01-01' = [
  for item in rules: {
    name: '${name}/${item.topic}/${item.subscription}/${item.name}'
    properties: {
      filterType: item.filterType
      sqlFilter: {
        sqlExpression: item.filter
      }
      action: {
        sqlExpression: item.action
      }
    }
    dependsOn: [
      subscription
    ]
  }
]

@description('Name of the namespace, once its entities are there too.')
output name string = namespace.outputs.name

@description('Id of the namespace.')
output id string = namespace.outputs.resourceId

@description('Host name of the namespace.')
output host string = replace(replace(replace(namespace.outputs.serviceBusEndpoint, 'https://', ''), ':443', ''), '/', '')

@description('The topic that the app sends to.')
output topic string = topology.Topics[0].Name

@description('Each rule as topic/subscription/rule, with spaces between them.')
output rules string = join(map(rules, item => '${item.topic}/${item.subscription}/${item.name}'), ' ')
