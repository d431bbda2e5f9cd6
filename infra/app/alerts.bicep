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

@description('Id of the Application Insights component, which the availability test belongs to.')
param insightsId string

@description('Base URL of the API.')
param apiUrl string

@description('Who gets an email; empty for nobody, and then the alerts show in Azure Monitor only.')
param email string

@description('So many messages may wait at every moment of half an hour before it is an alert.')
param waitingMessages int

@description('So many messages may wait for a later time before it is an alert.')
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
    window: 'PT5M'
  }
  {
    // The lowest of each minute: one moment without messages in the half hour, and it is none that stay.
    name: 'waiting-messages'
    description: 'Messages stay where they are: nothing takes them. See docs/OUTAGES.md.'
    metric: 'ActiveMessages'
    aggregation: 'Minimum'
    threshold: waitingMessages
    severity: 1
    window: 'PT30M'
  }
  {
    name: 'scheduled-messages'
    description: 'Many messages wait for a later time: a provider or vendors are down. See docs/OUTAGES.md.'
    metric: 'ScheduledMessages'
    aggregation: 'Maximum'
    threshold: scheduledMessages
    severity: 2
    window: 'PT5M'
  }
  {
    name: 'size'
    description: 'A queue or topic is four fifths full. What it does not take goes to the outbox. See docs/OUTAGES.md.'
    metric: 'Size'
    aggregation: 'Maximum'
    threshold: 4294967296
    severity: 1
    window: 'PT5M'
  }
  {
    name: 'server-errors'
    description: 'Service Bus fails. Orders go to the outbox meanwhile. See docs/OUTAGES.md.'
    metric: 'ServerErrors'
    aggregation: 'Total'
    threshold: 0
    severity: 2
    window: 'PT5M'
  }
  {
    name: 'throttled-requests'
    description: 'The namespace is at the limit of its tier, and orders go to the outbox.'
    metric: 'ThrottledRequests'
    aggregation: 'Total'
    threshold: 0
    severity: 2
    window: 'PT5M'
  }
]

var logAlerts = [
  {
    // On stderr and plain, which the host puts into the traces as an error, without the JSON of the other lines.
    name: 'does-not-start'
    description: 'The handler does not start: a setting is missing or wrong, and the line says which. See docs/RUNBOOKS.md.'
    query: 'AppTraces | where Message startswith "orderup cannot start"'
    threshold: 0
    severity: 0
    dimensions: []
  }
  {
    // One dead letter of ours is ten failures of one function: that is for the alert on dead letters.
    name: 'failed-invocations'
    description: 'Invocations of a function fail, and more than the ten of a single dead letter.'
    query: 'AppRequests | where Success == false | where ResultCode !startswith "4"'
    threshold: 10
    severity: 2
    dimensions: [
      'Name'
    ]
  }
  {
    name: 'error-lines'
    description: 'The handler has logged an error: a key that is refused, a setting that is wrong, a fault of ours.'
    query: 'AppTraces | where Message has "ERROR" | extend line = parse_json(Message) | where line.level == "ERROR"'
    threshold: 0
    severity: 2
    dimensions: []
  }
  {
    name: 'put-off-for-long'
    description: 'A notification has been put off many times: it waits since hours. See docs/OUTAGES.md.'
    query: 'AppTraces | where Message has "later" | extend line = parse_json(Message) | where line.outcome == "later" and toint(line.span.generation) >= ${attempts}'
    threshold: 0
    severity: 2
    dimensions: []
  }
]

// Where the availability test asks from, and how many of them have to fail: one alone may have trouble of its own.
var testLocations = [
  'emea-nl-ams-azr'
  'emea-gb-db3-azr'
  'us-va-ash-azr'
  'apac-sg-sin-azr'
  'emea-au-syd-edge'
]
var failedLocations = 3

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
      windowSize: alert.window
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
            dimensions: map(alert.dimensions, column => {
              name: column
              operator: 'Include'
              values: [
                '*'
              ]
            })
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

// A page that needs no key and that only the handler has: it takes both, the host and the handler, to answer it.
resource availabilityTest 'Microsoft.Insights/webtests@2022-06-15' = {
  name: '${prefix}-availability'
  location: location
  tags: union(tags, {
    'hidden-link:${insightsId}': 'Resource'
  })
  kind: 'standard'
  properties: {
    Name: '${prefix}-availability'
    SyntheticMonitorId: '${prefix}-availability'
    Kind: 'standard'
    Enabled: true
    Frequency: 900
    Timeout: 30
    RetryEnabled: true
    Locations: map(testLocations, id => {
      Id: id
    })
    Request: {
      RequestUrl: '${apiUrl}/problems/invalid-fields'
      HttpVerb: 'GET'
      ParseDependentRequests: false
    }
    ValidationRules: {
      ExpectedHttpStatusCode: 200
      SSLCheck: true
    }
  }
}

resource availabilityAlert 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: '${prefix}-availability'
  location: 'global'
  tags: union(tags, {
    'hidden-link:${insightsId}': 'Resource'
    'hidden-link:${availabilityTest.id}': 'Resource'
  })
  properties: {
    description: 'The API does not answer: the app does not run, or is not to be reached. See docs/RUNBOOKS.md.'
    enabled: true
    severity: 0
    scopes: [
      availabilityTest.id
      insightsId
    ]
    evaluationFrequency: 'PT5M'
    // As long as the test takes to come round to all locations.
    windowSize: 'PT15M'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.WebtestLocationAvailabilityCriteria'
      webTestId: availabilityTest.id
      componentId: insightsId
      failedLocationCount: failedLocations
    }
    actions: map(actionGroupIds, id => {
      actionGroupId: id
    })
  }
}
