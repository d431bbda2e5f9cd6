// Log Analytics and Application Insights, which takes telemetry from identities only.

@description('Name of the Log Analytics workspace.')
param workspaceName string

@description('Name of the Application Insights component.')
param insightsName string

@description('Azure region.')
param location string

@description('Tags of both.')
param tags object

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
param retentionDays int

module workspace 'br/public:avm/res/operational-insights/workspace:0.15.1' = {
  name: 'log-analytics'
  params: {
    name: workspaceName
    location: location
    tags: tags
    skuName: 'PerGB2018'
    dataRetention: retentionDays
  }
}

module insights 'br/public:avm/res/insights/component:0.7.1' = {
  name: 'application-insights'
  params: {
    name: insightsName
    location: location
    tags: tags
    kind: 'web'
    applicationType: 'web'
    workspaceResourceId: workspace.outputs.resourceId
    retentionInDays: retentionDays
    disableLocalAuth: true
  }
}

// The queries of docs/QUERIES.md, among the workbooks of Application Insights.
resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(insightsName, 'workbook')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'Orderup'
    category: 'workbook'
    sourceId: insights.outputs.resourceId
    serializedData: loadTextContent('../workbook.json')
  }
}

@description('Name of the workspace.')
output workspaceName string = workspace.outputs.name

@description('Id of the workspace.')
output workspaceId string = workspace.outputs.resourceId

@description('Name of the Application Insights component.')
output insightsName string = insights.outputs.name

@description('Id of the Application Insights component.')
output insightsId string = insights.outputs.resourceId

@description('Where telemetry goes. Not a secret: without the identity\'s role nothing is taken.')
output connectionString string = insights.outputs.connectionString
