// What wakes somebody up. docs/AZURE.md says what to do for each.

@description('Azure region of the log alerts.')
param location string

@description('Tags of all of it.')
param tags object

@description('Short name in front of the alerts\' names.')
param prefix string

@description('Id of the Service Bus namespace.')
param namespaceId string

@description('Id of the Log Analytics workspace.')
param workspaceId string

@description('Who gets an email; empty for nobody, and then the alerts show in Azure Monitor only.')
param email string

@description('So many messages may wait on the topic for a later time before it is an alert.')
param scheduledMessages int

@description('A notification that has been put off so many times is an alert.')
param attempts int

var namespaceAlerts = [
  {
    name: 'dead-letters'
    description: 'Messages are in a dead-letter queue. See docs/DEAD-LETTERS.md.'
    metric: 'DeadletteredMessages'
    aggregation: 'Maximum'
    threshold: 0
    severity: 1
  }
  {
    name: 'scheduled-messages'
    description: 'Many messages wait for a later time: a provider or vendors are down. See docs/OUTAGES.md.'
    metric: 'ScheduledMessages'
    aggregation: 'Maximum'
    threshold: scheduledMessages
    severity: 2
  }
  {
    name: 'size'
    description: 'A queue or topic is four fifths full. What it does not take goes to the outbox. See docs/OUTAGES.md.'
    metric: 'Size'
    aggregation: 'Maximum'
    threshold: 4294967296
    severity: 1
  }
  {
    name: 'server-errors'
    description: 'Service Bus fails. Orders go to the outbox meanwhile. See docs/OUTAGES.md.'
    metric: 'ServerErrors'
    aggregation: 'Total'
    threshold: 0
    severity: 2
  }
  {
    name: 'throttled-requests'
    description: 'The namespace is at the limit of its tier, and orders go to the outbox.'
    metric: 'ThrottledRequests'
    aggregation: 'Total'
    threshold: 0
    severity: 2
  }
]

var logAlerts = [
  {
    name: 'failed-invocations'
    description: 'Invocations of functions fail; of a trigger\'s, ten failures are a dead letter.'
    query: 'AppRequests | where Success == false | where ResultCode !startswith "4"'
    threshold: 5
    severity: 2
  }
  {
    name: 'error-lines'
    description: 'The handler has logged an error: a key that is refused, a setting that is wrong, a fault of ours.'
    query: 'AppTraces | where Message has "ERROR" | extend line = parse_json(Message) | where line.level == "ERROR"'
    threshold: 0
    severity: 2
  }
  {
    name: 'put-off-for-long'
    description: 'A notification has been put off many times: it waits since hours. See docs/OUTAGES.md.'
    query: 'AppTraces | where Message has "later" | extend line = parse_json(Message) | where line.outcome == "later" and toint(line.span.generation) >= ${attempts}'
    threshold: 0
    severity: 2
  }
]

var actionGroupIds = empty(email) ? [] : [actionGroup.id]

resource actionGroup 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(email)) {
  name: '${prefix}-operators'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'orderup'
    emailReceivers: [
      {
        name: 'operators'
        emailAddress: email
        useCommonAlertSchema: true
      }
    ]
  }
}

resource metricAlerts 'Microsoft.Insights/metricAlerts@2018-03-01' = [
  for alert in namespaceAlerts: {
    name: '${prefix}-${alert.name}'
    location: 'global'
    tags: tags
    properties: {
      description: alert.description
      enabled: true
      severity: alert.severity
      scopes: [
        namespaceId
      ]
      evaluationFrequency: 'PT5M'
      windowSize: 'PT5M'
      autoMitigate: true
      criteria: {
        'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
        allOf: [
          {
            criterionType: 'StaticThresholdCriterion'
            name: alert.metric
            metricNamespace: 'Microsoft.ServiceBus/namespaces'
            metricName: alert.metric
            timeAggregation: alert.aggregation
            operator: 'GreaterThan'
            threshold: alert.threshold
            // One alert for each queue and topic; those of a topic are the sum of its subscriptions.
            dimensions: [
              {
                name: 'EntityName'
                operator: 'Include'
                values: [
                  '*'
                ]
              }
            ]
          }
        ]
      }
      actions: map(actionGroupIds, id => {
        actionGroupId: id
      })
    }
  }
]

resource queryAlerts 'Microsoft.Insights/scheduledQueryRules@2022-06-15' = [
  for alert in logAlerts: {
    name: '${prefix}-${alert.name}'
    location: location
    tags: tags
    properties: {
      displayName: '${prefix} ${alert.name}'
      description: alert.description
      enabled: true
      severity: alert.severity
      scopes: [
        workspaceId
      ]
      evaluationFrequency: 'PT5M'
      windowSize: 'PT15M'
      autoMitigate: true
      // A new workspace has no such tables before the first telemetry has come.
      skipQueryValidation: true
      criteria: {
        allOf: [
          {
            query: alert.query
            timeAggregation: 'Count'
            operator: 'GreaterThan'
            threshold: alert.threshold
            failingPeriods: {
              numberOfEvaluationPeriods: 1
              minFailingPeriodsToAlert: 1
            }
          }
        ]
      }
      actions: {
        actionGroups: actionGroupIds
      }
    }
  }
]
