/**
 * Names that generators of clients take for themselves, in lower case: a schema of that name is renamed behind the reader's
 * back, or does not compile. What a generator makes of an operation's name comes with its ending.
 */

/**
 * What openapi-generator 7.25 says of java, kotlin, go, python, rust, csharp and typescript-axios
 * (`config-help --reserved-words --language-specific-primitive --import-mappings --instantiation-types`).
 */
const openApiGenerator = `
  abstract actual and annotation any apiclient apiexception apiresponse array arraylist as assert async await awaited
  base base64 become bigdecimal bool boolean box break byte bytearray bytes capitalize case catch chan char checked
  class client collection collections companion complex128 complex64 configuration const constructor
  constructorparameters continue contract crate crossinline data date dateonly datetime datetimeoffset debugger decimal
  def default defer del delegate delete dict dictionary do double dyn dynamic elif else enum environment error event
  except exclude exec expect explicit export extends extern external extract f32 f64 fallthrough false field file final
  finally fixed float float32 float64 fn for foreach formparams from fun func function global go goto guid hashmap
  headerparams i16 i32 i64 i8 icollection if impl implements implicit import in infix init inline inner instanceof
  instancetype int int16 int32 int64 int8 integer interface internal io is isize it json kotlin lambda lateinit let
  linkedhashset list localdate localdatetime localreturntype localtime lock long loop lowercase macro map match mod move
  mut mutablelist mutablemap mutableset namespace native new nil noinfer noinline none nonlocal nonnullable not null
  number object offsetdatetime omit omitthisparameter open operatingsystem operator options or out override package
  param parameter parameters params partial pass pick print priv private property protected pub public queryparameters
  raise range readonly readonlyarray receiver record ref reified requestoptions required return returntype rune sbyte
  schema sealed select self set setparam short sizeof stackalloc static str stream strictfp string stringutil struct
  super suspend switch synchronized system tailrec this thisparametertype thistype throw throws timestamp timezone trait
  transient true try type typealias typeof u16 u32 u64 u8 uint uint16 uint32 uint64 uint8 uintptr ulong uncapitalize
  unchecked unsafe unsized uppercase uri use useformdata ushort using usize uuid val value var vararg version virtual
  void volatile when where while with yield
`;

/** The types beside the document's in what each of these makes. */
const others = `
  client clientinterface clientwithresponses clientwithresponsesinterface httprequestdoer requesteditorfn serverinterface
  strictserverinterface middlewarefunc handler handlerfrommux
  client clientoption server serveroption handler unimplementedhandler invoker middleware option route operationname labeler
  errorhandler errorstatuscode
  client clientinfo clienthooks responsevalue bytestream error builder prelude types defaults
  client authenticatedclient response errors unset file unexpectedstatus
  client clientoptions config options requestoptions requestresult auth querykey
  apiresponse apiexception apiclient configuration exception default defaultapi hostconfiguration
  operations paths components webhooks schemas
`;

const toWords = (text: string) => text.trim().split(/\s+/);

/** By openapi-generator; by oapi-codegen, ogen, progenitor, openapi-python-client, @hey-api/openapi-ts, openapi-typescript. */
export const takenNames: ReadonlySet<string> = new Set([openApiGenerator, others].flatMap(toWords));

/** ogen, oapi-codegen and @hey-api/openapi-ts name types after the operation, with one of these behind it. */
export const takenEndings = toWords(`
  Data Error Errors JSONRequestBody JSONResponse Operation Params Req RequestObject Res Response Responses ResponseObject
`);
