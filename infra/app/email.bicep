// Azure Communication Services for email, with a domain that Azure manages.
//
// Such a domain is for trying it out: it may send very few emails, and its name says nothing about the shop. A domain of
// your own has to be verified by records in its DNS, which no template can do.

@description('Name of the Email Communication Services resource.')
param emailServiceName string

@description('Name of the Communication Services resource, unique in Azure.')
param communicationName string

@description('Where the data is kept.')
param dataLocation string

@description('Tags of both.')
param tags object

resource emailService 'Microsoft.Communication/emailServices@2023-04-01' = {
  name: emailServiceName
  location: 'global'
  tags: tags
  properties: {
    dataLocation: dataLocation
  }
}

resource domain 'Microsoft.Communication/emailServices/domains@2023-04-01' = {
  parent: emailService
  name: 'AzureManagedDomain'
  location: 'global'
  tags: tags
  properties: {
    domainManagement: 'AzureManaged'
    userEngagementTracking: 'Disabled'
  }
}

resource communication 'Microsoft.Communication/communicationServices@2023-04-01' = {
  name: communicationName
  location: 'global'
  tags: tags
  properties: {
    dataLocation: dataLocation
    linkedDomains: [
      domain.id
    ]
  }
}

@description('Name of the Communication Services resource.')
output name string = communication.name

@description('URL of its data plane.')
output endpoint string = 'https://${communication.properties.hostName}'

@description('The address that such a domain sends from.')
output sender string = 'DoNotReply@${domain.properties.fromSenderDomain}'
