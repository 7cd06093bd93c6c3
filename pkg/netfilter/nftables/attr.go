// SPDX-License-Identifier: Apache-2.0

package nftables

// Attribute numbers, include/uapi/linux/netfilter/nf_tables.h. The C names
// of the comments are those of the errors.
const (
	attrListElem = 1 // NFTA_LIST_ELEM

	attrTableName     = 1 // NFTA_TABLE_NAME
	attrTableFlags    = 2 // NFTA_TABLE_FLAGS
	attrTableUse      = 3 // NFTA_TABLE_USE
	attrTableHandle   = 4 // NFTA_TABLE_HANDLE
	attrTableUserdata = 6 // NFTA_TABLE_USERDATA
	attrTableOwner    = 7 // NFTA_TABLE_OWNER

	attrChainTable    = 1  // NFTA_CHAIN_TABLE
	attrChainHandle   = 2  // NFTA_CHAIN_HANDLE
	attrChainName     = 3  // NFTA_CHAIN_NAME
	attrChainHook     = 4  // NFTA_CHAIN_HOOK
	attrChainPolicy   = 5  // NFTA_CHAIN_POLICY
	attrChainUse      = 6  // NFTA_CHAIN_USE
	attrChainType     = 7  // NFTA_CHAIN_TYPE
	attrChainCounters = 8  // NFTA_CHAIN_COUNTERS
	attrChainFlags    = 10 // NFTA_CHAIN_FLAGS
	attrChainUserdata = 12 // NFTA_CHAIN_USERDATA

	attrHookNum      = 1 // NFTA_HOOK_HOOKNUM
	attrHookPriority = 2 // NFTA_HOOK_PRIORITY
	attrHookDev      = 3 // NFTA_HOOK_DEV
	attrHookDevs     = 4 // NFTA_HOOK_DEVS
	attrDeviceName   = 1 // NFTA_DEVICE_NAME

	attrRuleTable       = 1 // NFTA_RULE_TABLE
	attrRuleChain       = 2 // NFTA_RULE_CHAIN
	attrRuleHandle      = 3 // NFTA_RULE_HANDLE
	attrRuleExpressions = 4 // NFTA_RULE_EXPRESSIONS
	attrRulePosition    = 6 // NFTA_RULE_POSITION
	attrRuleUserdata    = 7 // NFTA_RULE_USERDATA

	attrExprName = 1 // NFTA_EXPR_NAME
	attrExprData = 2 // NFTA_EXPR_DATA

	attrDataValue    = 1 // NFTA_DATA_VALUE
	attrDataVerdict  = 2 // NFTA_DATA_VERDICT
	attrVerdictCode  = 1 // NFTA_VERDICT_CODE
	attrVerdictChain = 2 // NFTA_VERDICT_CHAIN

	attrGenID       = 1 // NFTA_GEN_ID
	attrGenProcPID  = 2 // NFTA_GEN_PROC_PID
	attrGenProcName = 3 // NFTA_GEN_PROC_NAME

	attrSetTable    = 1  // NFTA_SET_TABLE
	attrSetName     = 2  // NFTA_SET_NAME
	attrSetFlags    = 3  // NFTA_SET_FLAGS
	attrSetKeyType  = 4  // NFTA_SET_KEY_TYPE
	attrSetKeyLen   = 5  // NFTA_SET_KEY_LEN
	attrSetDataType = 6  // NFTA_SET_DATA_TYPE
	attrSetDataLen  = 7  // NFTA_SET_DATA_LEN
	attrSetDesc     = 9  // NFTA_SET_DESC
	attrSetTimeout  = 11 // NFTA_SET_TIMEOUT
	attrSetUserdata = 13 // NFTA_SET_USERDATA
	attrSetHandle   = 16 // NFTA_SET_HANDLE

	attrDescSize = 1 // NFTA_SET_DESC_SIZE

	attrElemListTable    = 1 // NFTA_SET_ELEM_LIST_TABLE
	attrElemListSet      = 2 // NFTA_SET_ELEM_LIST_SET
	attrElemListElements = 3 // NFTA_SET_ELEM_LIST_ELEMENTS

	attrElemKey         = 1  // NFTA_SET_ELEM_KEY
	attrElemData        = 2  // NFTA_SET_ELEM_DATA
	attrElemFlags       = 3  // NFTA_SET_ELEM_FLAGS
	attrElemTimeout     = 4  // NFTA_SET_ELEM_TIMEOUT
	attrElemExpiration  = 5  // NFTA_SET_ELEM_EXPIRATION
	attrElemUserdata    = 6  // NFTA_SET_ELEM_USERDATA
	attrElemExpr        = 7  // NFTA_SET_ELEM_EXPR
	attrElemObjRef      = 9  // NFTA_SET_ELEM_OBJREF
	attrElemKeyEnd      = 10 // NFTA_SET_ELEM_KEY_END
	attrElemExpressions = 11 // NFTA_SET_ELEM_EXPRESSIONS
)
