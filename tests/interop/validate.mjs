// Validates an OpenAPI or AsyncAPI document with what others wrote: schemas and validators from npm.
//
// Reads the document on stdin and prints what is wrong with it. Exit status 3 says that something is; any other failure
// is one of this program.

import { readFileSync } from "node:fs";
import asyncapi from "@asyncapi/specs";
import { Validator } from "@seriousme/openapi-schema-validator";
import Ajv from "ajv";

const document = JSON.parse(readFileSync(0, "utf8"));
let errors;
if (document.asyncapi === undefined) {
  ({ errors } = await new Validator().validate(document));
} else {
  // AsyncAPI publishes the schema of its documents; formats in it are those of draft 7 and some of its own.
  const ajv = new Ajv.default({ strict: false, validateFormats: false });
  const validate = ajv.compile(asyncapi.schemasWithoutId[document.asyncapi]);
  if (!validate(document)) ({ errors } = validate);
}
if (errors !== undefined) {
  console.error(JSON.stringify(errors, null, 2));
  process.exitCode = 3;
}
