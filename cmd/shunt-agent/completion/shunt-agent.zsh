#compdef shunt-agent
# zsh completion for shunt-agent: source <(shunt-agent completion zsh), or put it as
# _shunt-agent in a folder of fpath.

_shunt_agent() {
	local -a candidates asked
	asked=("${(@Q)words[1,CURRENT-1]}")
	[[ ${words[CURRENT]} == -* ]] && asked+=("${words[CURRENT]}")
	candidates=("${(@f)$(SHELL=zsh "${asked[@]}" --generate-bash-completion 2>/dev/null)}")
	[[ -n ${candidates[1]} ]] && _describe -t commands shunt-agent candidates
}

if [[ $funcstack[1] == _shunt-agent || $funcstack[1] == _shunt_agent ]]; then
	_shunt_agent "$@"
else
	compdef _shunt_agent shunt-agent
fi
