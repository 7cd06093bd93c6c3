package nodediff
import ("testing";"strings";"fmt")
func TestDbg(t *testing.T){
 a:=twoNodes(t,"node-a","node-a","node-b")
 for _, e := range [][2]string{
 {"-A KUBE-POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE\n",""},
 {"-A OUTPUT -j KUBE-SERVICES\n",""},
 {"-A KUBE-SERVICES -d 10.96.0.10/32","-A KUBE-MARK-MASQ -d 10.96.0.10/32"},
 {"-j DNAT --to-destination 10.77.1.2:8080","-j DNAT --to-destination 10.77.1.9:8080"},
 {"--probability 0.50000000000","--probability 0.25000000000"},
 {"-A KUBE-FORWARD -m mark","-A KUBE-FORWARD -j DROP\n-A KUBE-FORWARD -m mark"},
 {":INPUT ACCEPT",":INPUT DROP"},
 }{
  n:=0
  b:=edited(t,func(s string)string{ if strings.Contains(s,e[0]) {n++}; return strings.Replace(s,e[0],e[1],1)},"node-a","node-a","node-b")
  got,same:=compared(t,a,b,Selection{})
  fmt.Println("==",n,e,same); for _,l:=range got {fmt.Println(l)}
 }
 got,same:=compared(t, twoNodes(t, "node-a", "node-a"), twoNodes(t, "node-b", "node-a"), Selection{})
 fmt.Println("== policy",same); for _,l:=range got {fmt.Println(l)}
 got,same=compared(t, twoNodes(t, "node-a", "node-a","node-b"), twoNodes(t, "node-b", "node-a","node-b"), Selection{})
 fmt.Println("== policy2",same); for _,l:=range got {fmt.Println(l)}
 got,same=compared(t, twoNodes(t, "node-a", "node-a","node-b"), twoNodes(t, "node-a", "node-a"), Selection{})
 fmt.Println("== api",same); for _,l:=range got {fmt.Println(l)}
 got,same=compared(t, realNode(t,"nft",nil), realNode(t,"legacy",nil), Selection{})
 fmt.Println("== backend",same); for _,l:=range got {fmt.Println(l)}
}
