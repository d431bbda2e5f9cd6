// Verifies one webhook with the `standardwebhooks` of npm.
//
// Reads {"secret", "headers", "body"} on stdin and prints the payload. Exit status 3 says that the signature
// is not right; any other failure is one of this program.

import { readFileSync } from "node:fs";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

const { secret, headers, body } = JSON.parse(readFileSync(0, "utf8"));
try {
  console.log(JSON.stringify(new Webhook(secret).verify(body, headers)));
} catch (error) {
  if (!(error instanceof WebhookVerificationError)) throw error;
  console.error(error.message);
  process.exitCode = 3;
}
